// HTTP dates (RFC 9110, section 5.6.7), in their three forms:
//
//   Sun, 06 Nov 1994 08:49:37 GMT     IMF-fixdate
//   Sunday, 06-Nov-94 08:49:37 GMT    RFC 850, obsolete
//   Sun Nov  6 08:49:37 1994          asctime, obsolete
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock::http {

// Seconds since 1970 UTC; nothing for what is no such date. The name of the weekday must be one,
// but need not be the right one. A two-digit year is of 1970 to 2069.
std::optional<int64_t> parse_http_date(std::string_view text) noexcept;

}  // namespace penstock::http
