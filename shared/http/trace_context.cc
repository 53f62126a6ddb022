#include "shared/http/trace_context.h"

#include <algorithm>
#include <vector>

#include "shared/http/header_lines.h"

namespace penstock::http {
namespace {

int digit(char c) noexcept {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Small letters only, and not all zero where that is no id.
template <size_t N>
bool read_hex(std::string_view text, std::array<uint8_t, N>& out) noexcept {
  for (size_t i = 0; i < N; ++i) {
    const int high = digit(text[2 * i]);
    const int low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) {
      return false;
    }
    out[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

template <size_t N>
std::string write_hex(const std::array<uint8_t, N>& bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 0xF];
  }
  return text;
}

template <size_t N>
bool is_zero(const std::array<uint8_t, N>& bytes) noexcept {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

std::string_view trimmed(std::string_view text) noexcept {
  const size_t from = text.find_first_not_of(" \t");
  return from == text.npos ? std::string_view()
                           : text.substr(from, text.find_last_not_of(" \t") - from + 1);
}

// key = lcalpha or digit, then up to 255 of lcalpha, digit, _ - * / @ (section 3.3.1.3.1).
bool is_key(std::string_view key) noexcept {
  constexpr size_t kMostKeyBytes = 256;
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !key.empty() && key.size() <= kMostKeyBytes && is_letter(key.front()) &&
         std::all_of(key.begin(), key.end(), [&](char c) {
           return is_letter(c) || std::string_view("_-*/@").find(c) != std::string_view::npos;
         });
}

// Printable ASCII without ',' and '=', not ending in a blank (section 3.3.1.3.2).
bool is_value(std::string_view value) noexcept {
  constexpr size_t kMostValueBytes = 256;
  return !value.empty() && value.size() <= kMostValueBytes && value.back() != ' ' &&
         std::all_of(value.begin(), value.end(),
                     [](char c) { return c >= 0x20 && c <= 0x7E && c != ',' && c != '='; });
}

bool is_member(std::string_view member) noexcept {
  const size_t equals = member.find('=');
  return equals != member.npos && is_key(member.substr(0, equals)) &&
         is_value(member.substr(equals + 1));
}

size_t joined_bytes(const std::vector<std::string_view>& members) {
  size_t bytes = members.empty() ? 0 : members.size() - 1;
  for (const std::string_view member : members) {
    bytes += member.size();
  }
  return bytes;
}

}  // namespace

std::optional<TraceContext> parse_traceparent(std::string_view value) noexcept {
  constexpr size_t kTraceAt = 3;
  constexpr size_t kParentAt = 36;
  constexpr size_t kFlagsAt = 53;
  if (value.size() < kTraceparentBytes || value[kTraceAt - 1] != '-' ||
      value[kParentAt - 1] != '-' || value[kFlagsAt - 1] != '-') {
    return std::nullopt;
  }
  std::array<uint8_t, 1> version{};
  std::array<uint8_t, 1> flags{};
  TraceContext context;
  constexpr uint8_t kNoVersion = 0xFF;
  if (!read_hex(value, version) || version[0] == kNoVersion ||
      !read_hex(value.substr(kTraceAt), context.trace) || is_zero(context.trace) ||
      !read_hex(value.substr(kParentAt), context.parent) || is_zero(context.parent) ||
      !read_hex(value.substr(kFlagsAt), flags)) {
    return std::nullopt;
  }
  // What a later version says behind these fields is not known here.
  if (value.size() > kTraceparentBytes && (version[0] == 0 || value[kTraceparentBytes] != '-')) {
    return std::nullopt;
  }
  context.flags = flags[0] & TraceContext::kSampled;
  return context;
}

std::string render_traceparent(const TraceContext& context) {
  return "00-" + write_hex(context.trace) + "-" + write_hex(context.parent) + "-" +
         write_hex(std::array<uint8_t, 1>{context.flags});
}

std::string hex_of(const TraceId& id) { return write_hex(id); }
std::string hex_of(const SpanId& id) { return write_hex(id); }

std::string clean_tracestate(std::string_view value) {
  std::vector<std::string_view> members;
  while (!value.empty()) {
    const size_t comma = std::min(value.find(','), value.size());
    const std::string_view member = trimmed(value.substr(0, comma));
    value.remove_prefix(std::min(comma + 1, value.size()));
    if (member.empty()) {
      continue;
    }
    if (!is_member(member) || members.size() == kMostTracestateMembers) {
      return {};
    }
    members.push_back(member);
  }
  // Section 3.3.1.5: long ones go first, then the last.
  while (joined_bytes(members) > kMostTracestateBytes) {
    const auto longest = std::find_if(members.rbegin(), members.rend(), [](const auto& member) {
      return member.size() > kLongTracestateMember;
    });
    members.erase(longest == members.rend() ? members.end() - 1 : longest.base() - 1);
  }
  std::string clean;
  for (const std::string_view member : members) {
    clean.append(clean.empty() ? "" : ",").append(member);
  }
  return clean;
}

std::optional<TraceHeaders> trace_headers_of(std::string_view lines) {
  std::optional<std::string_view> parent;
  std::string state;
  HeaderLine line;
  while (!lines.empty() && next_header_line(lines, line) == nullptr) {
    if (same_name(line.name, "traceparent")) {
      if (parent) {
        return std::nullopt;
      }
      parent = line.value;
    } else if (same_name(line.name, "tracestate")) {
      state.append(state.empty() ? "" : ",").append(line.value);
    }
  }
  const auto context = parent ? parse_traceparent(*parent) : std::nullopt;
  return context ? std::optional(TraceHeaders{*context, clean_tracestate(state)}) : std::nullopt;
}

}  // namespace penstock::http
