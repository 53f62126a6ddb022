#include "worker/ctl/time_of.h"

#include <time.h>

#include <charconv>
#include <ctime>

#include "shared/base/clock.h"
#include "shared/base/units.h"

namespace penstock::ctl {

std::optional<int64_t> time_of(const std::string& text, int64_t now_s) {
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error == std::errc() && end == text.data() + text.size()) {
    return seconds;
  }
  if (const auto ago_ns = parse_duration_ns(text)) {
    return now_s - *ago_ns / kNsPerSec;
  }
  for (const char* const form : {"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"}) {
    std::tm date{};
    const char* const rest = ::strptime(text.c_str(), form, &date);
    if (rest != nullptr && *rest == '\0') {
      return ::timegm(&date);
    }
  }
  return std::nullopt;
}

}  // namespace penstock::ctl
