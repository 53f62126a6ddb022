// Parts: what a job's answer is made of on its way between hosts, and the two forms that parts have
// in Redis.
//
// A part's place is FENCE-NUMBER: the fence of the taking that made it, and its number in that
// taking's answer, from 1. So places sort, also over takings, and the answers of different takings
// are never joined. A place is also an entry's id in the job's stream, and what an event's reader
// says as Last-Event-ID.
//
//   message   on the channel of the host that waits: parts of many jobs
//             "parts " then of each: id's length (1 byte), id, fence, number, kind (1), size, bytes
//   entry     in a job's stream, with the place of its last part as its id: parts in a row
//             number of the first, then of each: kind (1), size, bytes
//
// fence, number and size are LEB128 (https://en.wikipedia.org/wiki/LEB128), of nine bytes at most.
//
// What is read is hostile until one of these has accepted it. Views point into what was read.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace penstock::queue {

struct PartPlace {
  static constexpr uint64_t kHighest = uint64_t{1} << 53;  // of a fence, and of a number

  uint64_t fence = 0;   // 0: before all
  uint64_t number = 0;  // 0: before the first part
  // NOLINTNEXTLINE(*-nullptr): it sees a 0 in this
  auto operator<=>(const PartPlace&) const = default;

  std::string text() const;
};
// "7-12"; nothing: it is none.
std::optional<PartPlace> parse_place(std::string_view text) noexcept;

struct Part {
  static constexpr size_t kMostIdBytes = 64;
  static constexpr size_t kMostBytes = (1U << 20) + (64U << 10);

  // What it says is its sender's and its reader's business; only the end is known here.
  enum class Kind : uint8_t {
    kBegun = 1,  // the job has been taken, or begins anew: the answer starts here
    kHead = 2,
    kChunk = 3,  // of the answer's body; may come in other pieces than it was said in
    kNews = 4,   // progress, a preview
    kEnd = 5,    // nothing follows
  };
  PartPlace place;
  Kind kind = Kind::kBegun;
  std::string_view bytes;
};

constexpr std::string_view kPartsMessage = "parts ";  // that it begins with
constexpr std::string_view kOverMessage = "over";     // on a job's channel: it has ended

// REQUIRES: id and bytes within their bounds.
void append_to_message(std::string& message, std::string_view id, const Part& part);
// The first of an entry brings its number with it. REQUIRES: likewise; the next number.
void append_to_entry(std::string& entry, const Part& part);

// The parts of a message, in order.
class MessageReader {
 public:
  // REQUIRES: it begins with kPartsMessage.
  explicit MessageReader(std::string_view message) noexcept
      : rest_(message.substr(kPartsMessage.size())) {}
  // False: there are no more, or what follows is none.
  bool next(std::string_view& id, Part& part) noexcept;
  bool broken() const noexcept { return !rest_.empty(); }

 private:
  std::string_view rest_;
};

// The parts of an entry, in order.
class EntryReader {
 public:
  EntryReader(PartPlace last, std::string_view entry) noexcept;
  // The place of the next; nothing is there once it is behind the entry's own.
  const PartPlace& at() const noexcept { return at_; }
  bool next(Part& part) noexcept;
  // It has other parts than its id says.
  bool broken() const noexcept { return !rest_.empty() || at_.number != last_ + 1; }

 private:
  std::string_view rest_;
  PartPlace at_;
  uint64_t last_;
};

}  // namespace penstock::queue
