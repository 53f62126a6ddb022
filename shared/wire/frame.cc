#include "shared/wire/frame.h"

#include "shared/base/bytes.h"

namespace penstock::wire {

const char* decode_header(const char* bytes, const Limits& limits, FrameHeader& header) noexcept {
  const auto length = load_le<uint32_t>(bytes);
  const auto type_and_zero = load_le<uint32_t>(bytes + 4);
  if (type_and_zero == 0 || type_and_zero > kLastFrameType) {
    return type_and_zero > 0xFF ? "reserved bytes are not zero" : "unknown frame type";
  }
  const auto type = static_cast<FrameType>(type_and_zero);
  header = {length, type, load_le<uint64_t>(bytes + 8)};
  const bool holds_body = type == FrameType::kSubmit || type == FrameType::kCheck;
  if (length > (holds_body ? limits.submit_bytes : limits.other_bytes)) {
    return kOverLimit;
  }
  return nullptr;
}

void encode_header(char* out16, FrameType type, uint64_t id, uint32_t length) noexcept {
  store_le(out16, length);
  store_le(out16 + 4, static_cast<uint32_t>(type));
  store_le(out16 + 8, id);
}

void set_frame_id(char* frame, uint64_t id) noexcept { store_le(frame + 8, id); }

Decoded decode(std::string_view buffer, const Limits& limits) noexcept {
  Decoded result;
  if (buffer.size() < kHeaderBytes) {
    result.needed = kHeaderBytes;
    return result;
  }
  result.error = decode_header(buffer.data(), limits, result.frame.header);
  if (result.error != nullptr) {
    result.kind = Decoded::kBad;
    return result;
  }
  const size_t whole = kHeaderBytes + result.frame.header.length;
  if (buffer.size() < whole) {
    result.needed = whole;
    return result;
  }
  result.kind = Decoded::kFrame;
  result.frame.payload = buffer.substr(kHeaderBytes, result.frame.header.length);
  result.consumed = whole;
  return result;
}

bool FieldReader::next(uint32_t& tag, std::string_view& value) noexcept {
  if (rest_.empty() || error_ != nullptr) {
    return false;
  }
  if (rest_.size() < kFieldHeaderBytes) {
    error_ = "field header past the end of the payload";
    return false;
  }
  tag = load_le<uint32_t>(rest_.data());
  const auto size = load_le<uint32_t>(rest_.data() + 4);
  if (size > rest_.size() - kFieldHeaderBytes) {
    error_ = "field size past the end of the payload";
    return false;
  }
  value = rest_.substr(kFieldHeaderBytes, size);
  rest_.remove_prefix(kFieldHeaderBytes + size);
  return true;
}

FrameWriter::FrameWriter(std::string& out, FrameType type, uint64_t id)
    : out_(out), start_(out.size()) {
  char header[kHeaderBytes];
  encode_header(header, type, id, 0);
  out_.append(header, kHeaderBytes);
}

FrameWriter& FrameWriter::field(uint32_t tag, std::string_view value) {
  if (!value.empty()) {
    char header[kFieldHeaderBytes];
    write_field_header(header, tag, static_cast<uint32_t>(value.size()));
    out_.append(header, kFieldHeaderBytes);
    out_.append(value);
  }
  return *this;
}

FrameWriter& FrameWriter::number(uint32_t tag, uint64_t value) {
  if (value != 0) {
    char field[kFieldHeaderBytes + 8];
    write_number(field, tag, value);
    out_.append(field, sizeof field);
  }
  return *this;
}

void FrameWriter::finish() {
  store_le(out_.data() + start_, static_cast<uint32_t>(out_.size() - start_ - kHeaderBytes));
}

void append_chunk(std::string& out, uint64_t id, std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view part = bytes.substr(0, kMaxChunkBytes);
    char header[kHeaderBytes];
    encode_header(header, FrameType::kChunk, id, static_cast<uint32_t>(part.size()));
    out.append(header, kHeaderBytes);
    out.append(part);
    bytes.remove_prefix(part.size());
  }
}

void append_empty(std::string& out, FrameType type, uint64_t id) {
  char header[kHeaderBytes];
  encode_header(header, type, id, 0);
  out.append(header, kHeaderBytes);
}

char* write_field_header(char* out, uint32_t tag, uint32_t size) noexcept {
  store_le(out, tag);
  store_le(out + 4, size);
  return out + kFieldHeaderBytes;
}

char* write_number(char* out, uint32_t tag, uint64_t value) noexcept {
  out = write_field_header(out, tag, 8);
  store_le(out, value);
  return out + 8;
}

}  // namespace penstock::wire
