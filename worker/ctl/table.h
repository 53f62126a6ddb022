// Tables for people.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace penstock::ctl {

using Row = std::vector<std::string>;

// Columns as wide as their widest cell, two spaces between. REQUIRES: rows of the same length, the
// first of them the headings.
std::string render(const std::vector<Row>& rows);

// Text from elsewhere, fit for a terminal: '?' for each control character.
std::string printable(std::string_view text);

// At most so many characters of it; if that is not all, the last is an ellipsis. REQUIRES: most >
// 0.
std::string shortened(std::string_view text, size_t most);

// 41 is "41 s", 41000 is "11 h 23 min".
std::string duration(int64_t seconds);

}  // namespace penstock::ctl
