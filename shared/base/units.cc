#include "shared/base/units.h"

#include <charconv>
#include <iterator>

#include "shared/base/clock.h"

namespace penstock {
namespace {

struct Unit {
  std::string_view name;
  int64_t factor;
};

constexpr Unit kDurations[] = {
    {"d", 86'400 * kNsPerSec},
    {"h", 3'600 * kNsPerSec},
    {"m", 60 * kNsPerSec},
    {"s", kNsPerSec},
    {"ms", kNsPerMs},
    {"us", kNsPerUs},
    {"ns", 1},
};
constexpr Unit kSizes[] = {
    {"B", 1},
    {"", 1},
    {"KiB", int64_t{1} << 10},
    {"MiB", int64_t{1} << 20},
    {"GiB", int64_t{1} << 30},
    {"TiB", int64_t{1} << 40},
};

template <size_t N>
std::optional<int64_t> parse(std::string_view text, const Unit (&units)[N]) noexcept {
  int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || text.front() == '-') {
    return std::nullopt;
  }
  const std::string_view name(rest, static_cast<size_t>(end - rest));
  for (const Unit& unit : units) {
    if (unit.name == name) {
      int64_t product = 0;
      return __builtin_mul_overflow(number, unit.factor, &product) ? std::nullopt
                                                                   : std::optional(product);
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<int64_t> parse_duration_ns(std::string_view text) noexcept {
  return text == "0" ? std::optional<int64_t>(0) : parse(text, kDurations);
}

std::optional<int64_t> parse_size_bytes(std::string_view text) noexcept {
  return parse(text, kSizes);
}

std::string format_duration(int64_t ns) {
  for (const Unit& unit : kDurations) {
    if (ns != 0 && ns % unit.factor == 0) {
      return std::to_string(ns / unit.factor).append(unit.name);
    }
  }
  return "0s";
}

}  // namespace penstock
