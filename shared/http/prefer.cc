#include "shared/http/prefer.h"

#include <algorithm>
#include <charconv>

namespace penstock::http {
namespace {

constexpr int64_t kTenYears = int64_t{10} * 365 * 86'400;

std::string_view trimmed(std::string_view text) noexcept {
  const size_t begin = std::min(text.find_first_not_of(" \t"), text.size());
  const size_t end = text.find_last_not_of(" \t") + 1;
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

bool equals(std::string_view text, std::string_view lower) noexcept {
  return std::equal(text.begin(), text.end(), lower.begin(), lower.end(), [](char a, char b) {
    return (a >= 'A' && a <= 'Z' ? static_cast<char>(a + 32) : a) == b;
  });
}

template <typename Number>
bool read_digits(std::string_view text, Number& number) noexcept {
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number);
  return !text.empty() && text.front() != '-' && error == std::errc() && at == end;
}

// Seconds, however many: those that are past counting are the most that there are.
std::optional<uint32_t> read_wait(std::string_view text) noexcept {
  uint32_t seconds = UINT32_MAX;
  const bool digits = !text.empty() && text.find_first_not_of("0123456789") == text.npos;
  read_digits(text, seconds);
  return digits ? std::optional(seconds) : std::nullopt;
}

// Where the part ends that begins here: at `separator` outside of a quoted string.
size_t end_of_part(std::string_view text, char separator) noexcept {
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (quoted && text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      quoted = !quoted;
    } else if (text[i] == separator && !quoted) {
      return i;
    }
  }
  return text.size();
}

void read_preference(std::string_view text, Prefer& prefer) noexcept {
  text = text.substr(0, end_of_part(text, ';'));  // its parameters say nothing to us
  const size_t equals_at = std::min(text.find('='), text.size());
  const std::string_view name = trimmed(text.substr(0, equals_at));
  std::string_view value = trimmed(text.substr(std::min(equals_at + 1, text.size())));
  if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
    value = value.substr(1, value.size() - 2);
  }
  if (equals(name, "respond-async") && value.empty()) {
    prefer.respond_async = true;
  } else if (equals(name, "wait") && !prefer.wait_s) {
    prefer.wait_s = read_wait(value);
  }
}

}  // namespace

Prefer parse_prefer(std::string_view text) noexcept {
  Prefer prefer;
  while (!text.empty()) {
    const size_t end = end_of_part(text, ',');
    read_preference(text.substr(0, end), prefer);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return prefer;
}

std::optional<uint64_t> parse_within_ms(std::string_view text) noexcept {
  constexpr uint64_t kMsPerSecond = 1000;
  constexpr size_t kMostDigits = 9;
  const size_t point = std::min(text.find('.'), text.size());
  int64_t seconds = 0;
  if (!read_digits(text.substr(0, point), seconds) || seconds > kTenYears) {
    return std::nullopt;
  }
  uint64_t ms = static_cast<uint64_t>(seconds) * kMsPerSecond;
  if (point < text.size()) {
    const std::string_view part = text.substr(point + 1);
    int64_t digits = 0;
    if (part.size() > kMostDigits || !read_digits(part, digits)) {
      return std::nullopt;
    }
    auto parts = static_cast<uint64_t>(digits) * kMsPerSecond;
    for (size_t i = 0; i < part.size(); ++i) {
      parts = (parts + 9) / 10;  // rounded up: something is not nothing
    }
    ms += parts;
  }
  return ms == 0 ? std::nullopt : std::optional(ms);
}

std::optional<int64_t> parse_delay_seconds(std::string_view text) noexcept {
  int64_t seconds = 0;
  return read_digits(text, seconds) && seconds <= kTenYears ? std::optional(seconds) : std::nullopt;
}

}  // namespace penstock::http
