// Which of a caller's request headers go on to the server that its job runs on, as "Name: value\n"
// lines (header_lines.h): those that say how the request is to be read, and under which name it is
// traced. Never what says who the caller is: Authorization, cookies and keys stay here.
#pragma once

#include <string_view>

namespace penstock::http {

// Case does not count.
bool is_passed_on(std::string_view name) noexcept;

// Whether a header's value may go on: printable ASCII, and no more than kMaxHeaderValue bytes.
bool is_header_value(std::string_view value) noexcept;

}  // namespace penstock::http
