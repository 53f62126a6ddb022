// "10r/m": how an operator writes a rate, read and put into words.
#pragma once

#include <cstdint>
#include <string_view>

namespace penstock {

struct Rate {
  uint64_t amount = 0;
  uint64_t period_ns = 0;
  uint64_t period_s = 0;
  std::string_view period_word;  // "minute"
};

// Reads AMOUNT UNIT / PERIOD: "10r/m", "50r/s". Returns nullptr, or what would be right.
const char* parse_rate(std::string_view text, Rate& rate) noexcept;

// Reads a whole number of at most `limit`; false if it is not one.
bool parse_number(std::string_view text, uint64_t limit, uint64_t& number) noexcept;

}  // namespace penstock
