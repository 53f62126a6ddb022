#include "worker/queue/shared_answers/parts.h"

#include <charconv>

namespace penstock::queue {
namespace {

void append_number(std::string& out, uint64_t number) {
  for (; number >= 0x80; number >>= 7) {
    out.push_back(static_cast<char>(number | 0x80));
  }
  out.push_back(static_cast<char>(number));
}

void append_bytes(std::string& out, const Part& part) {
  out.push_back(static_cast<char>(part.kind));
  append_number(out, part.bytes.size());
  out.append(part.bytes);
}

// Takes from the front of `rest`; false: it is not there, and `rest` may be anything behind.
bool take_byte(std::string_view& rest, uint8_t& byte) noexcept {
  if (rest.empty()) {
    return false;
  }
  byte = static_cast<uint8_t>(rest.front());
  rest.remove_prefix(1);
  return true;
}
bool take_number(std::string_view& rest, uint64_t most, uint64_t& number) noexcept {
  constexpr unsigned kMostBits = 63;
  number = 0;
  uint8_t byte = 0x80;
  for (unsigned shift = 0; byte >= 0x80; shift += 7) {
    if (shift == kMostBits || !take_byte(rest, byte)) {
      return false;
    }
    number |= uint64_t{byte & 0x7FU} << shift;
  }
  return number <= most;
}
bool take_text(std::string_view& rest, size_t size, std::string_view& text) noexcept {
  if (size > rest.size()) {
    return false;
  }
  text = rest.substr(0, size);
  rest.remove_prefix(size);
  return true;
}
bool take_bytes(std::string_view& rest, Part& part) noexcept {
  uint8_t kind = 0;
  uint64_t size = 0;
  if (!take_byte(rest, kind) || kind < static_cast<uint8_t>(Part::Kind::kBegun) ||
      kind > static_cast<uint8_t>(Part::Kind::kEnd) || !take_number(rest, Part::kMostBytes, size)) {
    return false;
  }
  part.kind = static_cast<Part::Kind>(kind);
  return take_text(rest, size, part.bytes);
}

bool parse_number(std::string_view text, uint64_t& number) noexcept {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && number <= PartPlace::kHighest;
}

}  // namespace

std::string PartPlace::text() const { return std::to_string(fence) + '-' + std::to_string(number); }

std::optional<PartPlace> parse_place(std::string_view text) noexcept {
  const size_t dash = text.find('-');
  PartPlace place;
  if (dash == std::string_view::npos || !parse_number(text.substr(0, dash), place.fence) ||
      !parse_number(text.substr(dash + 1), place.number)) {
    return std::nullopt;
  }
  return place;
}

void append_to_message(std::string& message, std::string_view id, const Part& part) {
  if (message.empty()) {
    message = kPartsMessage;
  }
  message.push_back(static_cast<char>(id.size()));
  message.append(id);
  append_number(message, part.place.fence);
  append_number(message, part.place.number);
  append_bytes(message, part);
}

void append_to_entry(std::string& entry, const Part& part) {
  if (entry.empty()) {
    append_number(entry, part.place.number);
  }
  append_bytes(entry, part);
}

bool MessageReader::next(std::string_view& id, Part& part) noexcept {
  std::string_view rest = rest_;
  uint8_t size = 0;
  if (!take_byte(rest, size) || size == 0 || size > Part::kMostIdBytes ||
      !take_text(rest, size, id) || !take_number(rest, PartPlace::kHighest, part.place.fence) ||
      !take_number(rest, PartPlace::kHighest, part.place.number) || part.place.fence == 0 ||
      part.place.number == 0 || !take_bytes(rest, part)) {
    return false;
  }
  rest_ = rest;
  return true;
}

EntryReader::EntryReader(PartPlace last, std::string_view entry) noexcept
    : rest_(entry), at_{last.fence, 0}, last_(last.number) {
  // What has no first number, or one behind its last, has no parts.
  if (last.fence == 0 || !take_number(rest_, last.number, at_.number) || at_.number == 0) {
    rest_ = {};
    at_.number = last.number + 2;
  }
}

bool EntryReader::next(Part& part) noexcept {
  std::string_view rest = rest_;
  if (at_.number > last_ || !take_bytes(rest, part)) {
    return false;
  }
  part.place = at_;
  ++at_.number;
  rest_ = rest;
  return true;
}

}  // namespace penstock::queue
