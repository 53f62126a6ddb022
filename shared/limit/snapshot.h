// A counter table's copy in a file, for what shared memory does not outlive: a reboot.
//
//   file    = frame | frame | ...                                    numbers are little-endian
//   frame   = | size, 4 | last, 4 | payload, `size` bytes, up to 64 KiB | checksum, 8 |
//   payload of the first frame = | magic, 8 | version, 8 | slots of the table, 8 | secret, 16
//                                | steady time, 8 | wall time, 8 | generations, 160 |
//   payload of each other      = record | record | ...
//   generations                = | present, 8 | began, 8 x (steady, wall) | held since, 16
//                                | held until, 8 |                                     (table.h)
//   record  = | group, 4 | used, 2 | live, 2 | key and state of each live slot, 16 each |
//
// A record tells of one group of the table (table.h): which of its slots were ever used, one bit
// each, and what the live ones hold. Groups ascend; those never used are left out. Where a slot was
// used matters even if nothing is in it any more: a search for a key goes on past such a slot and
// ends at one that is empty.
//
// The checksum is SipHash-2-4 over the frame under a fixed key and the checksum of the frame before
// (of the second frame: a number made of the table's secret). It finds accidents: bytes that
// changed, frames that were lost, came twice or belong elsewhere, a file that ends early. It is no
// protection against somebody who may write the file.
//
// The copy is made while the table is in use, so it is of no single moment. Each slot is as it was
// at the time written in the file or a little later; what happened in between may be in it or not.
// A key whose slot went idle and was moved meanwhile may come twice: the one that is found counts.
//
// The file holds the zone's secret: it belongs in mode 0600.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "shared/base/result.h"
#include "shared/limit/table.h"

namespace penstock::limit {

constexpr size_t kMaxFramePayload = 64 * 1024;

// What a file says of its table before its slots come.
struct SnapshotHead {
  uint64_t slots = 0;
  Secret secret;
  Instant taken;  // on the clocks of the table that was copied
  Generations generations;
};

// Writes a copy of the table, taken at `now` on the table's clocks, to `fd` from where it stands.
// Returns the copy's digest. An Error says what write() said; errno is as it was left by it.
// Linear in the table; needs 64 KiB of stack.
Result<uint64_t> write_snapshot(int fd, const Table& table, const Instant& now);

// The digest that write_snapshot would return: two copies of one table with the same digest hold
// the same, whenever they were taken.
uint64_t snapshot_digest(const Table& table, const Instant& now);

// Reads a file from where `fd` stands, in pieces of a frame, and trusts none of it: each frame is
// verified before it is looked at. Needs nothing but its own 64 KiB, whatever the file says. Every
// Error says in a few words what is wrong with the file: "it ends in the middle of a frame".
class SnapshotReader {
 public:
  // REQUIRES: fd stays open.
  explicit SnapshotReader(int fd) noexcept : fd_(fd) {}

  // First. An Error also if the file is of another version.
  Result<SnapshotHead> head();

  // Then everything else, to the end of the file. The slots are put into `into`, unless it is
  // nullptr: then the file is only judged. After an Error the table is good for nothing but to be
  // made anew.
  // REQUIRES: `into` is empty, has the head's number of slots and its secret; nobody uses it.
  Status body(Table* into);

 private:
  Result<std::span<const std::byte>> next_frame();
  Status take_records(std::span<const std::byte> payload, Table* into);
  Status check_end() const;

  int fd_;
  SnapshotHead head_;
  uint64_t chain_ = 0;       // checksum of the frame before
  uint64_t next_group_ = 0;  // the least that may come
  bool last_ = false;
  alignas(8) std::array<std::byte, 16 + kMaxFramePayload> frame_;
};

// What a table made from the copy is to be given as clock_offset_ns, so that its steady clock goes
// on where the copied one stopped, and has counted the time since by the wall clock. If that was
// stepped back, no time has passed.
int64_t clock_offset_ns(const SnapshotHead& head, int64_t monotonic_ns,
                        int64_t realtime_ns) noexcept;

}  // namespace penstock::limit
