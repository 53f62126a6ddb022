// Structured Field Values (RFC 9651): the parts that the headers we read are made of.
//
// Strict, as section 4.2 asks: what the grammar does not have fails the whole field.
#pragma once

#include <cstddef>
#include <string_view>

namespace penstock::http {

// Where the bare item ends that begins at `at`: an integer, decimal, string, token, byte sequence,
// boolean, date or display string (section 4.2.3.1). npos: there is none.
size_t bare_item_end(std::string_view text, size_t at) noexcept;

// Where the parameters end that may begin at `at` (section 4.2.3.2); npos: they are malformed.
size_t parameters_end(std::string_view text, size_t at) noexcept;

}  // namespace penstock::http
