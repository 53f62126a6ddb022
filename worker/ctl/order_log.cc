#include "worker/ctl/order_log.h"

#include <syslog.h>
#include <unistd.h>

#include <cstdlib>

namespace penstock::ctl {
namespace {

// As a line of penstockd's log has them, without what such a line begins with.
std::string as_text(std::string_view words, LogFields fields) {
  constexpr std::string_view kBegin = "[info] ";
  const std::string line = log_line({}, 0, LogLevel::kInfo, words, fields);
  return line.substr(line.find(kBegin) + kBegin.size());
}

}  // namespace

void log_order(bool done, LogFields fields) {
  const char* const sudo = std::getenv("SUDO_USER");
  const std::string line =
      as_text("order", {{"uid", static_cast<int64_t>(::getuid())}, {"by", sudo ? sudo : ""}}) +
      as_text("", fields) + as_text("", {{"outcome", done ? "done" : "failed"}});
  ::openlog("penstockctl", LOG_PID, LOG_AUTHPRIV);
  ::syslog(done ? LOG_NOTICE : LOG_WARNING, "%s", line.c_str());
  ::closelog();
}

}  // namespace penstock::ctl
