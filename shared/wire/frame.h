// Frames: how bytes on a socket become messages. See PROTOCOL.md, which is normative.
//
// Nothing here owns a socket or allocates on decoding: views point into the caller's buffer.
// Everything that arrives is hostile until one of these functions has accepted it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace penstock::wire {

// A peer says the least version that has what it needs; penstockd takes each from the first to the
// newest. 2: VERIFY and VERIFIED. 3: QUOTA.
constexpr uint32_t kVersion = 1;
constexpr uint32_t kVersionOfVerify = 2;
constexpr uint32_t kVersionOfQuota = 3;
constexpr uint32_t kNewestVersion = 3;
constexpr size_t kHeaderBytes = 16;

enum class FrameType : uint8_t {
  kHello = 1,
  kSubmit = 2,
  kAccepted = 3,
  kHead = 4,
  kChunk = 5,
  kProgress = 6,
  kDone = 7,
  kFailed = 8,
  kCancel = 9,
  kTake = 10,
  kHeartbeat = 11,
  kStatus = 12,
  kDrain = 13,
  kGoodbye = 14,
  kAsk = 15,
  kHold = 16,
  kOver = 17,
  kDevice = 18,
  kDevices = 19,
  kClaim = 20,
  kGrant = 21,
  kCheck = 22,
  kChecked = 23,
  kWindow = 24,
  kSettled = 25,
  kSlots = 26,
  kPreview = 27,
  kNote = 28,
  kVerify = 29,
  kVerified = 30,
  kLog = 31,
  kSpent = 32,
  kQuota = 33,
};
constexpr uint8_t kLastFrameType = 33;

// A worker sends so much of a job's answer (bytes of CHUNK) without being asked for more (WINDOW).
constexpr uint64_t kFirstWindowBytes = 1U << 20;

// What penstockd may add to a SUBMIT on its way to a worker: its deadline_ms, and its trace.
constexpr uint32_t kDeadlineFieldBytes = 16;
constexpr uint32_t kTraceFieldBytes = 8 + 55;
constexpr uint32_t kSubmitSlackBytes = kDeadlineFieldBytes + kTraceFieldBytes;

// The largest payloads a reader accepts, in bytes.
struct Limits {
  uint32_t submit_bytes = (32U << 20) + (64U << 10);  // of SUBMIT and CHECK
  uint32_t other_bytes = 1U << 20;
};

struct FrameHeader {
  uint32_t length = 0;
  FrameType type = FrameType::kHello;
  uint64_t id = 0;
};

struct Frame {
  FrameHeader header;
  std::string_view payload;  // points into the decoded buffer
};

// The rule a payload breaks that is too long. The header is good otherwise, so whoever wants to may
// pass the payload over.
inline constexpr char kOverLimit[] = "payload over its limit";

// Reads 16 bytes. Returns nullptr and fills `header`, or says what rule was broken; for kOverLimit,
// `header` is filled too.
const char* decode_header(const char* bytes, const Limits& limits, FrameHeader& header) noexcept;

void encode_header(char* out16, FrameType type, uint64_t id, uint32_t length) noexcept;

// Replaces the id of an encoded frame. REQUIRES: frame holds at least a header.
void set_frame_id(char* frame, uint64_t id) noexcept;

// Takes whole frames off the front of a buffer, one a call.
struct Decoded {
  enum Kind : uint8_t { kFrame, kIncomplete, kBad } kind = kIncomplete;
  Frame frame;
  size_t consumed = 0;          // kFrame: bytes of `buffer` the frame took
  size_t needed = 0;            // kIncomplete: bytes `buffer` must hold at least, for progress
  const char* error = nullptr;  // kBad: the rule that was broken
};
Decoded decode(std::string_view buffer, const Limits& limits) noexcept;

// Walks the fields of a payload.
class FieldReader {
 public:
  explicit FieldReader(std::string_view payload) noexcept : rest_(payload) {}
  // False at the end or at the first broken rule; error() tells which.
  bool next(uint32_t& tag, std::string_view& value) noexcept;
  const char* error() const noexcept { return error_; }

 private:
  std::string_view rest_;
  const char* error_ = nullptr;
};

// Appends one frame to `out`; the length is filled in by finish().
class FrameWriter {
 public:
  FrameWriter(std::string& out, FrameType type, uint64_t id);
  // Defaults (empty, 0) are left out.
  FrameWriter& field(uint32_t tag, std::string_view value);
  FrameWriter& number(uint32_t tag, uint64_t value);
  void finish();

 private:
  std::string& out_;
  size_t start_;
};

// CHUNK frames: header and bytes as they are, as many frames as the limit asks for.
constexpr size_t kMaxChunkBytes = 256U << 10;
void append_chunk(std::string& out, uint64_t id, std::string_view bytes);
// A frame without payload: CANCEL, DRAIN, STATUS.
void append_empty(std::string& out, FrameType type, uint64_t id);

constexpr size_t kFieldHeaderBytes = 8;
// Raw field writers for those who bring their own memory; both return the end of what was written.
char* write_field_header(char* out, uint32_t tag, uint32_t size) noexcept;
char* write_number(char* out, uint32_t tag, uint64_t value) noexcept;

}  // namespace penstock::wire
