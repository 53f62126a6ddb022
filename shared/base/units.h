// Quantities as people write them in a configuration: "20ms", "10m", "2GiB".
//
// A quantity is a whole number and a unit with nothing between them. Both functions return nothing
// for what is not such a quantity or does not fit, and never a negative number.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock {

// Units: ns us ms s m h d. A bare 0 needs none.
std::optional<int64_t> parse_duration_ns(std::string_view text) noexcept;

// Units: B KiB MiB GiB TiB. A bare number is bytes.
std::optional<int64_t> parse_size_bytes(std::string_view text) noexcept;

// The other way, in the largest unit that divides it: 1500000000 is "1500ms".
std::string format_duration(int64_t ns);
// Likewise: 1536 is "1536B", 2048 is "2KiB".
std::string format_size(int64_t bytes);

}  // namespace penstock
