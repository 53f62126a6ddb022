// Message codec: from a message (messages.h) to its bytes, and back. Both ways are made from its
// one function, visit().
#pragma once

#include <bitset>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "shared/base/bytes.h"
#include "shared/wire/frame.h"

namespace penstock::wire {

// Reads a payload. Returns nullptr and fills `message`, or says what rule was broken.
// The frame's type must already have been checked against M::kType.
template <typename M>
const char* parse(std::string_view payload, M& message) noexcept {
  message = M{};
  FieldReader reader(payload);
  uint32_t tag = 0;
  std::string_view value;
  std::bitset<128> seen;
  const char* error = nullptr;
  while (error == nullptr && reader.next(tag, value)) {
    if (tag > 0 && tag < seen.size()) {  // 0: a field that was wiped
      if (seen[tag]) {
        return "a field comes twice";
      }
      seen[tag] = true;
    }
    message.visit([&](uint32_t field_tag, auto& member) {
      if (field_tag != tag) {
        return;
      }
      if constexpr (std::is_same_v<std::remove_reference_t<decltype(member)>, std::string_view>) {
        member = value;
      } else if (value.size() == 8) {
        member = load_le<std::remove_reference_t<decltype(member)>>(value.data());
      } else {
        error = "a number is not 8 bytes";
      }
    });
  }
  return error != nullptr ? error : reader.error();
}

// Appends the message as a whole frame.
template <typename M>
void append(std::string& out, uint64_t id, M message) {
  FrameWriter writer(out, M::kType, id);
  message.visit([&](uint32_t tag, auto& member) {
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(member)>, std::string_view>) {
      writer.field(tag, member);
    } else {
      writer.number(tag, static_cast<uint64_t>(member));
    }
  });
  writer.finish();
}

// For senders without a heap: the bytes append() would have written, header included ...
template <typename M>
size_t encoded_size(M message) noexcept {
  size_t size = kHeaderBytes;
  message.visit([&](uint32_t, auto& member) {
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(member)>, std::string_view>) {
      size += member.empty() ? 0 : kFieldHeaderBytes + member.size();
    } else {
      size += member == 0 ? 0 : kFieldHeaderBytes + 8;
    }
  });
  return size;
}

// ... and those bytes, with `trailing_bytes` counted into the frame's length: the sender appends
// that many itself. REQUIRES: room for encoded_size(message). Returns the end of what was written.
template <typename M>
char* encode(char* out, uint64_t id, M message, size_t trailing_bytes = 0) noexcept {
  char* const start = out;
  out += kHeaderBytes;
  message.visit([&](uint32_t tag, auto& member) {
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(member)>, std::string_view>) {
      if (!member.empty()) {
        out = write_field_header(out, tag, static_cast<uint32_t>(member.size()));
        std::memcpy(out, member.data(), member.size());
        out += member.size();
      }
    } else if (member != 0) {
      out = write_number(out, tag, static_cast<uint64_t>(member));
    }
  });
  encode_header(
      start, M::kType, id,
      static_cast<uint32_t>(static_cast<size_t>(out - start) - kHeaderBytes + trailing_bytes));
  return out;
}

}  // namespace penstock::wire
