// "10r/m": how an operator writes an amount of something in a period, read and put into words.
#pragma once

#include <cstdint>
#include <string_view>

#include "shared/limit/window.h"

namespace penstock {

// What is counted. GPU time is written in seconds and counted in milliseconds.
enum class Unit : uint8_t { kRequests, kTokens, kGpu };
constexpr size_t kUnits = 3;

// Counted per written: 1000 for GPU time.
uint64_t scale_of(Unit unit) noexcept;
std::string_view symbol_of(Unit unit) noexcept;  // r, t, gs
// "request", "tokens", "GPU seconds": for messages.
std::string_view word_of(Unit unit, uint64_t amount) noexcept;
// "requests", "tokens", "gpu_seconds": in JSON and as a metric's label.
std::string_view label_of(Unit unit) noexcept;
bool parse_unit(std::string_view text, Unit& unit) noexcept;

struct Period {
  limit::Span span;
  uint64_t seconds;   // a month is 30 days here
  const char* each;   // "a minute"
  const char* whose;  // "This minute's"; of a day "Today's"
};

struct Rate {
  uint64_t amount = 0;  // as written
  Unit unit = Unit::kRequests;
  const Period* period = nullptr;  // none before it is read

  uint64_t counted() const noexcept { return amount * scale_of(unit); }
  uint64_t period_ns() const noexcept { return period->seconds * 1'000'000'000; }
};

// Reads AMOUNT UNIT / PERIOD: "10r/m", "2000t/m", "5gs/h". Returns nullptr, or what would be right.
const char* parse_rate(std::string_view text, Rate& rate) noexcept;

// Reads a whole number of at most `limit`; false if it is not one.
bool parse_number(std::string_view text, uint64_t limit, uint64_t& number) noexcept;

}  // namespace penstock
