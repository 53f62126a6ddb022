#include "worker/ctl/table.h"

#include <algorithm>
#include <cstdint>

namespace penstock::ctl {
namespace {

// Characters of UTF-8 text: bytes that begin one.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

}  // namespace

std::string render(const std::vector<Row>& rows) {
  std::vector<size_t> widths(rows.front().size());
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], width_of(row[i]));
    }
  }
  std::string out;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i] + std::string(widths[i] - width_of(row[i]) + 2, ' ');
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

std::string shortened(std::string_view text, size_t most) {
  if (width_of(text) <= most) {
    return std::string(text);
  }
  size_t end = 0;
  for (size_t characters = 0; characters < most; ++end) {
    characters += (static_cast<uint8_t>(text[end]) & 0xC0) != 0x80 ? 1 : 0;
  }
  return std::string(text.substr(0, end - 1)) + "…";
}

// U+0080 to U+009F, C2 80 to C2 9F, are control characters as those below a space are.
std::string printable(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    const auto next = static_cast<uint8_t>(i + 1 < text.size() ? text[i + 1] : 0);
    const bool two_bytes = byte == 0xC2 && next >= 0x80 && next < 0xA0;
    const bool control = byte < 0x20 || byte == 0x7F || two_bytes;
    out += control ? '?' : text[i];
    i += two_bytes ? 1 : 0;
  }
  return out;
}

std::string duration(int64_t seconds) {
  struct Unit {
    int64_t seconds;
    const char* name;
  };
  constexpr Unit kUnits[] = {{86400, " d"}, {3600, " h"}, {60, " min"}, {1, " s"}};
  for (size_t i = 0; i + 1 < std::size(kUnits); ++i) {
    const auto [size, name] = kUnits[i];
    if (seconds >= size) {
      const int64_t rest = seconds % size / kUnits[i + 1].seconds;
      return std::to_string(seconds / size) + name +
             (rest > 0 ? " " + std::to_string(rest) + kUnits[i + 1].name : "");
    }
  }
  return std::to_string(seconds) + " s";
}

}  // namespace penstock::ctl
