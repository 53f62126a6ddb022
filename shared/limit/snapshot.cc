#include "shared/limit/snapshot.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "shared/base/bytes.h"

namespace penstock::limit {
namespace {

constexpr uint64_t kMagic = 0x70616e536b747350;  // "PstkSnap"
constexpr uint64_t kVersion = 2;
constexpr uint64_t kChecksumKey = 0x656c626174206b73;
constexpr size_t kFrameHead = 8;
constexpr size_t kChecksum = 8;
constexpr size_t kGenerationsBytes = 8 + (Generations::kRemembered + 1) * 16 + 8;
constexpr size_t kHeadPayload = 56 + kGenerationsBytes;
constexpr size_t kRecordHead = 8;
constexpr size_t kSlot = 16;
constexpr size_t kMaxRecord = kRecordHead + kSlotsPerGroup * kSlot;
constexpr int64_t kEndOfTime = int64_t{1} << 59;      // Instant::steady_ns
constexpr int64_t kEndOfWallTime = int64_t{1} << 62;  // the year 2116

uint64_t checksum(uint64_t before, std::span<const std::byte> frame) noexcept {
  return SipState<2, 4>(Secret{before, kChecksumKey}).hash64(frame.data(), frame.size());
}

// Where the chain of the records' frames begins.
uint64_t chain_start(const Secret& secret) noexcept {
  return SipState<2, 4>(Secret{0, kChecksumKey}).hash64(&secret, sizeof secret);
}

// The kinds whose state means something by itself, in any process at any time.
bool is_counter(uint64_t key) noexcept {
  switch (static_cast<Kind>(key & 7)) {
    case Kind::gcra:
    case Kind::fixed:
    case Kind::paired:
    case Kind::terms:
      return true;
    default:
      return false;
  }
}

bool is_live(const Slot& slot, const Instant& now, const Generations& generations) noexcept {
  return is_counter(slot.key) && !Table::is_idle(slot, now, generations, generations.present);
}

// Collects payload into frames, and writes these to a descriptor, or nowhere if that is -1.
class FrameWriter {
 public:
  explicit FrameWriter(int fd) noexcept : fd_(fd) {}

  // Room for `size` bytes more, in this frame or a new one; nullptr after an error.
  std::byte* room(size_t size) noexcept {
    if (size_ + size > kMaxFramePayload && !flush(false)) {
      return nullptr;
    }
    return frame_.data() + kFrameHead + size_;
  }
  void filled(size_t size) noexcept { size_ += size; }

  bool flush(bool last) noexcept {
    store_le(frame_.data(), static_cast<uint32_t>(size_));
    store_le(frame_.data() + 4, uint32_t{last});
    const size_t end = kFrameHead + size_;
    chain_ = checksum(chain_, {frame_.data(), end});
    store_le(frame_.data() + end, chain_);
    size_ = 0;
    return fd_ < 0 || write_all(end + kChecksum);
  }

  void restart_chain(uint64_t chain) noexcept { chain_ = chain; }
  uint64_t chain() const noexcept { return chain_; }

 private:
  bool write_all(size_t size) const noexcept {
    for (size_t done = 0; done < size;) {
      const ssize_t n = write(fd_, frame_.data() + done, size - done);
      if (n < 0 && errno != EINTR) {
        return false;
      }
      done += n < 0 ? 0 : static_cast<size_t>(n);
    }
    return true;
  }

  int fd_;
  size_t size_ = 0;
  uint64_t chain_ = 0;
  std::array<std::byte, kFrameHead + kMaxFramePayload + kChecksum> frame_;
};

void store_instant(std::byte* at, const Instant& instant) noexcept {
  store_le(at, instant.steady_ns);
  store_le(at + 8, instant.wall_ns);
}

Instant load_instant(const std::byte* at) noexcept {
  return {load_le<int64_t>(at), load_le<int64_t>(at + 8)};
}

bool is_possible(const Instant& instant) noexcept {
  return instant.steady_ns >= 0 && instant.steady_ns < kEndOfTime && instant.wall_ns >= 0 &&
         instant.wall_ns < kEndOfWallTime;
}

void store_generations(std::byte* at, const Generations& generations) noexcept {
  store_le(at, generations.present);
  at += 8;
  for (const Instant& began : generations.began) {
    store_instant(at, began);
    at += 16;
  }
  store_instant(at, generations.held_since);
  store_le(at + 16, generations.held_until_ns);
}

Generations load_generations(const std::byte* at) noexcept {
  Generations generations;
  generations.present = load_le<uint64_t>(at);
  at += 8;
  for (Instant& began : generations.began) {
    began = load_instant(at);
    at += 16;
  }
  generations.held_since = load_instant(at);
  generations.held_until_ns = load_le<int64_t>(at + 16);
  return generations;
}

bool are_possible(const Generations& generations) noexcept {
  return is_possible(generations.held_since) &&
         std::all_of(std::begin(generations.began), std::end(generations.began), is_possible);
}

bool write_head(FrameWriter& out, const Table& table, const Instant& now) noexcept {
  std::byte* at = out.room(kHeadPayload);
  const Secret secret = table.secret();
  store_le(at, kMagic);
  store_le(at + 8, kVersion);
  store_le(at + 16, table.slots());
  store_le(at + 24, secret.k0);
  store_le(at + 32, secret.k1);
  store_instant(at + 40, now);
  store_generations(at + 56, table.generations());
  out.filled(kHeadPayload);
  return out.flush(false);
}

bool write_record(FrameWriter& out, const Table& table, uint32_t group, const Instant& now,
                  const Generations& generations) noexcept {
  std::byte* const record = out.room(kMaxRecord);
  if (record == nullptr) {
    return false;
  }
  std::byte* at = record + kRecordHead;
  unsigned used = 0;
  unsigned live = 0;
  for (unsigned i = 0; i < kSlotsPerGroup; ++i) {
    const Slot slot = table.slot(uint64_t{group} * kSlotsPerGroup + i);
    used |= unsigned{slot.key != 0} << i;
    if (is_live(slot, now, generations)) {
      live |= 1U << i;
      store_le(at, slot.key);
      store_le(at + 8, slot.state);
      at += kSlot;
    }
  }
  if (used != 0) {
    store_le(record, group);
    store_le(record + 4, static_cast<uint16_t>(used));
    store_le(record + 6, static_cast<uint16_t>(live));
    out.filled(static_cast<size_t>(at - record));
  }
  return true;
}

bool write_records(FrameWriter& out, const Table& table, const Instant& now) noexcept {
  out.restart_chain(chain_start(table.secret()));
  const Generations generations = table.generations();
  for (uint64_t group = 0; group < table.slots() / kSlotsPerGroup; ++group) {
    if (!write_record(out, table, static_cast<uint32_t>(group), now, generations)) {
      return false;
    }
  }
  return out.flush(true);
}

// Reads `size` bytes, fewer only at the end of the file; -1 if read() failed.
ssize_t read_all(int fd, std::byte* to, size_t size) noexcept {
  size_t done = 0;
  while (done < size) {
    const ssize_t n = read(fd, to + done, size - done);
    if (n == 0) {
      break;
    }
    if (n < 0 && errno != EINTR) {
      return -1;
    }
    done += n < 0 ? 0 : static_cast<size_t>(n);
  }
  return static_cast<ssize_t>(done);
}

Error unreadable() { return Error{std::string("it cannot be read: ") + std::strerror(errno)}; }

}  // namespace

Result<uint64_t> write_snapshot(int fd, const Table& table, const Instant& now) {
  FrameWriter out(fd);
  if (!write_head(out, table, now) || !write_records(out, table, now)) {
    return Error{std::string("write() failed: ") + std::strerror(errno)};
  }
  return out.chain();
}

uint64_t snapshot_digest(const Table& table, const Instant& now) {
  FrameWriter nowhere(-1);
  write_records(nowhere, table, now);
  return nowhere.chain();
}

// The payload of the next frame, once its checksum has been found right.
Result<std::span<const std::byte>> SnapshotReader::next_frame() {
  const ssize_t head = read_all(fd_, frame_.data(), kFrameHead);
  if (head < 0) {
    return unreadable();
  }
  if (head < static_cast<ssize_t>(kFrameHead)) {
    return Error{head == 0 ? "it ends before its last frame" : "it ends in the middle of a frame"};
  }
  const auto size = load_le<uint32_t>(frame_.data());
  const auto last = load_le<uint32_t>(frame_.data() + 4);
  if (size > kMaxFramePayload || last > 1) {
    return Error{"a frame's size is impossible"};
  }
  const size_t rest = size + kChecksum;
  const ssize_t got = read_all(fd_, frame_.data() + kFrameHead, rest);
  if (got < 0) {
    return unreadable();
  }
  if (got < static_cast<ssize_t>(rest)) {
    return Error{"it ends in the middle of a frame"};
  }
  const std::span<const std::byte> frame{frame_.data(), kFrameHead + size};
  chain_ = checksum(chain_, frame);
  if (load_le<uint64_t>(frame.data() + frame.size()) != chain_) {
    return Error{"its checksum is wrong"};
  }
  last_ = last == 1;
  return frame.subspan(kFrameHead);
}

Result<SnapshotHead> SnapshotReader::head() {
  auto payload = next_frame();
  if (!payload) {
    return payload.error();
  }
  const std::byte* at = payload->data();
  if (payload->size() < 16 || load_le<uint64_t>(at) != kMagic) {
    return Error{"it is no snapshot of counters"};
  }
  if (const auto version = load_le<uint64_t>(at + 8); version != kVersion) {
    return Error{"it is of version " + std::to_string(version) + ", this program knows " +
                 std::to_string(kVersion)};
  }
  if (payload->size() != kHeadPayload || last_) {
    return Error{"its head is impossible"};
  }
  head_.slots = load_le<uint64_t>(at + 16);
  head_.secret = {load_le<uint64_t>(at + 24), load_le<uint64_t>(at + 32)};
  head_.taken = load_instant(at + 40);
  head_.generations = load_generations(at + 56);
  if (!is_possible(head_.taken) || !are_possible(head_.generations)) {
    return Error{"its times are impossible"};
  }
  chain_ = chain_start(head_.secret);
  return head_;
}

Status SnapshotReader::take_records(std::span<const std::byte> payload, Table* into) {
  while (!payload.empty()) {
    if (payload.size() < kRecordHead) {
      return Error{"a record is cut off"};
    }
    const uint64_t group = load_le<uint32_t>(payload.data());
    const unsigned used = load_le<uint16_t>(payload.data() + 4);
    const unsigned live = load_le<uint16_t>(payload.data() + 6);
    if (group < next_group_ || group >= head_.slots / kSlotsPerGroup) {
      return Error{"a slot's number is out of order or out of range"};
    }
    if (used == 0 || (live & ~used) != 0) {
      return Error{"a group's slots are impossible"};
    }
    payload = payload.subspan(kRecordHead);
    if (payload.size() < static_cast<size_t>(__builtin_popcount(live)) * kSlot) {
      return Error{"a record is cut off"};
    }
    for (unsigned i = 0; i < kSlotsPerGroup; ++i) {
      Slot slot;
      if ((live >> i & 1) != 0) {
        slot = {load_le<uint64_t>(payload.data()), load_le<uint64_t>(payload.data() + 8)};
        payload = payload.subspan(kSlot);
        if (!is_live(slot, head_.taken, head_.generations)) {
          return Error{"a slot's state is impossible"};
        }
      } else if ((used >> i & 1) != 0) {
        slot.key = static_cast<uint64_t>(Kind::vacated);
      }
      if (into != nullptr && slot.key != 0) {
        into->restore(group * kSlotsPerGroup + i, slot);
      }
    }
    next_group_ = group + 1;
  }
  return Ok{};
}

Status SnapshotReader::check_end() const {
  std::byte more;
  const ssize_t n = read_all(fd_, &more, 1);
  if (n < 0) {
    return unreadable();
  }
  return n == 0 ? Status(Ok{}) : Status(Error{"something follows its last frame"});
}

Status SnapshotReader::body(Table* into) {
  if (into != nullptr) {
    into->set_generations(head_.generations);
  }
  for (;;) {
    auto payload = next_frame();
    if (!payload) {
      return payload.error();
    }
    if (payload->empty() && !last_) {
      return Error{"a frame is empty"};
    }
    if (Status taken = take_records(*payload, into); !taken) {
      return taken;
    }
    if (last_) {
      return check_end();
    }
  }
}

int64_t clock_offset_ns(const SnapshotHead& head, int64_t monotonic_ns,
                        int64_t realtime_ns) noexcept {
  // Room is left for what this boot may yet bring.
  constexpr int64_t kLatest = kEndOfTime - (int64_t{1} << 56);
  const int64_t gap = std::clamp<int64_t>(realtime_ns - head.taken.wall_ns, 0, kLatest);
  return std::min(head.taken.steady_ns + gap, kLatest) - monotonic_ns;
}

}  // namespace penstock::limit
