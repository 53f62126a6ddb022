#include "ngx_module/rate.h"

#include <charconv>

#include "shared/base/clock.h"

namespace penstock {
namespace {

struct Period {
  char letter;
  uint64_t seconds;
  std::string_view word;
};

// A month here is a bucket's refill time, not a date: 30 days.
constexpr Period kPeriods[] = {
    {'s', 1, "second"},  {'m', 60, "minute"},   {'h', 3600, "hour"},
    {'d', 86400, "day"}, {'w', 604800, "week"}, {'M', 2592000, "month"},
};

}  // namespace

bool parse_number(std::string_view text, uint64_t limit, uint64_t& number) noexcept {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, number);
  return result.ec == std::errc() && result.ptr == end && number <= limit;
}

const char* parse_rate(std::string_view text, Rate& rate) noexcept {
  const size_t slash = text.find('/');
  const size_t unit = text.find_first_not_of("0123456789");
  if (slash == std::string_view::npos || unit == 0 || unit >= slash || slash + 2 != text.size()) {
    return "a rate is a number, a unit and a period, such as 10r/m or 50r/s";
  }
  const std::string_view unit_name = text.substr(unit, slash - unit);
  if (unit_name != "r") {
    return unit_name == "t" || unit_name == "gs" ? "this version counts requests only: write 10r/m"
                                                 : "the unit is \"r\", requests: write 10r/m";
  }
  if (!parse_number(text.substr(0, unit), 1'000'000'000, rate.amount) || rate.amount == 0) {
    return "the amount is a whole number from 1 to 1000000000";
  }
  for (const Period& period : kPeriods) {
    if (period.letter == text.back()) {
      rate.period_s = period.seconds;
      rate.period_ns = period.seconds * kNsPerSec;
      rate.period_word = period.word;
      return nullptr;
    }
  }
  return "the period is one of s, m, h, d, w, M (second, minute, hour, day, week, month)";
}

}  // namespace penstock
