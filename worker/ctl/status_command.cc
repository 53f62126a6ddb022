#include "worker/ctl/ask.h"
#include "worker/ctl/command.h"
#include "worker/ctl/status_table.h"

namespace penstock::ctl {

Outcome run_status(const Arguments& arguments) {
  if (!arguments.words().empty() || (arguments.has("socket") && arguments.has("config"))) {
    return misused(arguments.words().empty() ? "give -s or -c, not both"
                                             : "status takes no '" + arguments.words()[0] + "'");
  }
  std::string socket = arguments.value("socket", "/run/penstock/penstock.sock");
  if (arguments.has("config")) {
    auto found = socket_of(arguments.value("config"));
    if (!found) {
      return failed(found.error());
    }
    socket = *std::move(found);
  }
  auto answer = ask_status(socket);
  if (!answer) {
    return failed(answer.error());
  }
  if (arguments.has("json")) {
    return as_received(*std::move(answer));
  }
  auto table = status_table(*answer);
  return table ? Outcome{Outcome::kFine, *std::move(table)} : failed(table.error());
}

}  // namespace penstock::ctl
