// How long a server asks to be left alone: retry-after-ms, or Retry-After in seconds, as a fraction
// of them (which is in no grammar, and is sent) or as a date (RFC 9110, section 10.2.3).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock::http_engine {

// Nanoseconds from `unix_ns` on, 0 or more. Nothing: the headers say nothing, or no time that can
// be: negative, past, infinite, words. `milliseconds` wins, as it is finer.
std::optional<int64_t> read_retry_after(std::string_view seconds_or_date,
                                        std::string_view milliseconds, int64_t unix_ns);

}  // namespace penstock::http_engine
