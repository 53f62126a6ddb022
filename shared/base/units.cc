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
    {"TiB", int64_t{1} << 40},
    {"GiB", int64_t{1} << 30},
    {"MiB", int64_t{1} << 20},
    {"KiB", int64_t{1} << 10},
    {"B", 1},
    {"", 1},
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

// In the largest that divides it.
template <size_t N>
std::string format(int64_t number, const Unit (&units)[N], const char* nothing) {
  for (const Unit& unit : units) {
    if (number != 0 && number % unit.factor == 0) {
      return std::to_string(number / unit.factor).append(unit.name);
    }
  }
  return nothing;
}

}  // namespace

std::optional<int64_t> parse_duration_ns(std::string_view text) noexcept {
  return text == "0" ? std::optional<int64_t>(0) : parse(text, kDurations);
}

std::optional<int64_t> parse_size_bytes(std::string_view text) noexcept {
  return parse(text, kSizes);
}

std::string format_duration(int64_t ns) { return format(ns, kDurations, "0s"); }

std::string format_size(int64_t bytes) { return format(bytes, kSizes, "0B"); }

}  // namespace penstock
