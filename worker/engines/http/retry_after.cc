#include "worker/engines/http/retry_after.h"

#include <charconv>
#include <cmath>

#include "shared/base/clock.h"
#include "shared/http/http_date.h"

namespace penstock::http_engine {
namespace {

constexpr double kMostNs = 1e18;

std::optional<int64_t> number(std::string_view text, double unit_ns) {
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value) ||
      std::signbit(value)) {
    return std::nullopt;
  }
  return static_cast<int64_t>(std::min(value * unit_ns, kMostNs));
}

}  // namespace

std::optional<int64_t> read_retry_after(std::string_view seconds_or_date,
                                        std::string_view milliseconds, int64_t unix_ns) {
  if (const auto told = number(milliseconds, kNsPerMs)) {
    return told;
  }
  if (const auto told = number(seconds_or_date, kNsPerSec)) {
    return told;
  }
  const auto date = http::parse_http_date(seconds_or_date);
  const int64_t left_s = date ? *date - unix_ns / kNsPerSec : -1;
  return left_s >= 0 && left_s < INT64_MAX / kNsPerSec / 8 ? std::optional(left_s * kNsPerSec)
                                                           : std::nullopt;
}

}  // namespace penstock::http_engine
