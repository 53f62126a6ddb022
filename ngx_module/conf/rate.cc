#include "ngx_module/conf/rate.h"

#include <algorithm>
#include <charconv>
#include <iterator>

#include "shared/limit/span_letter.h"

namespace penstock {
namespace {

constexpr Period kPeriods[] = {
    {limit::Span::second, 1, "a second", "This second's"},
    {limit::Span::minute, 60, "a minute", "This minute's"},
    {limit::Span::hour, 3600, "an hour", "This hour's"},
    {limit::Span::day, 86400, "a day", "Today's"},
    {limit::Span::week, 604800, "a week", "This week's"},
    {limit::Span::month, 2592000, "a month", "This month's"},
};

struct UnitWords {
  std::string_view symbol, one, many, label;
  uint64_t scale;
};

constexpr UnitWords kUnitWords[kUnits] = {
    {"r", "request", "requests", "requests", 1},
    {"t", "token", "tokens", "tokens", 1},
    {"gs", "GPU second", "GPU seconds", "gpu_seconds", 1000},
};

const UnitWords& words(Unit unit) noexcept { return kUnitWords[static_cast<size_t>(unit)]; }

}  // namespace

uint64_t scale_of(Unit unit) noexcept { return words(unit).scale; }
std::string_view symbol_of(Unit unit) noexcept { return words(unit).symbol; }
std::string_view word_of(Unit unit, uint64_t amount) noexcept {
  return amount == 1 ? words(unit).one : words(unit).many;
}
std::string_view label_of(Unit unit) noexcept { return words(unit).label; }

bool parse_unit(std::string_view text, Unit& unit) noexcept {
  for (size_t i = 0; i < kUnits; ++i) {
    if (text == kUnitWords[i].symbol) {
      unit = static_cast<Unit>(i);
      return true;
    }
  }
  return false;
}

bool parse_number(std::string_view text, uint64_t limit, uint64_t& number) noexcept {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, number);
  return result.ec == std::errc() && result.ptr == end && number <= limit;
}

const char* parse_rate(std::string_view text, Rate& rate) noexcept {
  const size_t slash = text.find('/');
  const size_t unit = text.find_first_not_of("0123456789");
  if (slash == std::string_view::npos || unit == 0 || unit >= slash || slash + 2 != text.size()) {
    return "it is a number, a unit and a period, such as 10r/m or 50r/s";
  }
  if (text[unit] == '.' || text[unit] == ',') {
    return "the amount is a whole number: less than one a second is so many a minute, as 30r/m for "
           "0.5r/s";
  }
  if (!parse_unit(text.substr(unit, slash - unit), rate.unit)) {
    return "the unit is r (requests), t (model tokens) or gs (GPU seconds): write 10r/m";
  }
  if (!parse_number(text.substr(0, unit), 1'000'000'000, rate.amount) || rate.amount == 0) {
    return "the amount is a whole number from 1 to 1000000000";
  }
  const auto span = limit::span_of(text.substr(slash + 1));
  if (!span) {
    return "the period is one of s, m, h, d, w, M (second, minute, hour, day, week, month)";
  }
  rate.period = std::find_if(std::begin(kPeriods), std::end(kPeriods),
                             [&](const Period& period) { return period.span == *span; });
  return nullptr;
}

}  // namespace penstock
