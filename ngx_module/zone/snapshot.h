// A zone's snapshot on disk (shared/limit/snapshot.h), read when Nginx starts and replaced while it
// runs: the file at PATH is whole at any time, whatever dies, and whoever else writes it too.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "shared/base/result.h"
#include "shared/limit/snapshot.h"

namespace penstock {

// Where a snapshot is, and what this process last wrote there.
struct SnapshotFile {
  const char* path = nullptr;
  const char* temporary = nullptr;  // PATH.tmp: being written
  const char* damaged = nullptr;    // PATH.damaged: was found so
  const char* folder = nullptr;     // of all three
  uid_t owner = 0;                  // root gives it what it writes

  bool written = false;
  uint64_t digest = 0;  // of the copy in it
  dev_t device = 0;     // the file it was put in
  ino_t inode = 0;
};

enum class Found : uint8_t { none, good, other_size, damaged, unreadable };

struct FoundSnapshot {
  Found found = Found::none;
  std::string fault;   // of one that is damaged or unreadable
  uint64_t slots = 0;  // of the table in it
};

// Judges the snapshot at the file's path, all of it. One that others than root, this process's user
// and the owner could have written is not read. If it is good and `memory` isn't empty, `table` is
// made there of it, and its clock goes on from then. Otherwise `table` is left empty, and the
// memory may have been written to.
FoundSnapshot read_snapshot(const SnapshotFile& file, std::span<std::byte> memory,
                            std::optional<limit::Table>& table);

enum class Write : uint8_t {
  done,
  unchanged,  // the file holds what the table holds
  busy,       // another process is writing it
};

// Replaces the snapshot by one of `table`: PATH.tmp, fsync, rename, fsync of the folder. An Error
// says what could not be done to which file; the snapshot that was there then still is.
Result<Write> write_snapshot(SnapshotFile& file, const limit::Table& table);

}  // namespace penstock
