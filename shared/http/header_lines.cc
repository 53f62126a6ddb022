#include "shared/http/header_lines.h"

#include <algorithm>

namespace penstock::http {
namespace {

constexpr size_t kMaxName = 64;

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

bool is_token(char c) noexcept {
  return (lower(c) >= 'a' && lower(c) <= 'z') || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool is_printable(char c) noexcept { return c >= 0x20 && c <= 0x7E; }

// What frames the message, or is said by the server in its own way.
constexpr std::string_view kServers[] = {
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "keep-alive",
    "last-modified",
    "server",
    "trailer",
    "te",
    "transfer-encoding",
    "upgrade",
    "accept-ranges",
    "status",
    "sec-websocket-accept",
};

std::string_view trim(std::string_view text) noexcept {
  while (!text.empty() && text.front() == ' ') {
    text.remove_prefix(1);
  }
  while (!text.empty() && text.back() == ' ') {
    text.remove_suffix(1);
  }
  return text;
}

}  // namespace

bool same_name(std::string_view a, std::string_view b) noexcept {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

const char* next_header_line(std::string_view& rest, HeaderLine& line) noexcept {
  const size_t end = rest.find('\n');
  if (end == std::string_view::npos) {
    return "a header line does not end";
  }
  const std::string_view text = rest.substr(0, end);
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || colon == 0 || colon > kMaxName ||
      !std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(colon), is_token)) {
    return "a header has no name";
  }
  line = {text.substr(0, colon), trim(text.substr(colon + 1))};
  if (line.value.size() > kMaxHeaderValue ||
      !std::all_of(line.value.begin(), line.value.end(), is_printable)) {
    return "a header's value is too long, or not printable";
  }
  if (std::any_of(std::begin(kServers), std::end(kServers),
                  [&](std::string_view name) { return same_name(line.name, name); })) {
    return "a header that the server sets itself";
  }
  rest.remove_prefix(end + 1);
  return nullptr;
}

}  // namespace penstock::http
