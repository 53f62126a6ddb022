// Memory for a zone's counters in a file of tmpfs, so that it outlives every process of Nginx:
// after a kill -9 of all of them the next start finds the counters as they were.
//
// The file is /dev/shm/penstock-ID, mode 0600. It is made under that name with ".new" behind, and
// gets its name only when the table in it is complete and the configuration is accepted. All of its
// pages are taken at once: nobody who touches it can be told later that there is no room.
//
// The master maps it, and keeps it open with a read lock on it; workers inherit both. A second
// Nginx with the same zone file cannot have the write lock that it asks for first. The new master
// of a binary upgrade asks only for the read lock: both use the same table until the old one has
// gone. The lock is of the kind that belongs to the open file (F_OFD_SETLK), not to a process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "shared/base/result.h"
#include "shared/limit/table.h"

namespace penstock {

// Held by the cycles of one master process. It lies on the heap, as it outlives each of them; its
// layout is also read by another version of the module that comes with a reload.
struct ZoneMemory {
  uint64_t magic = kMagic;
  unsigned cycles = 0;  // that use it; freed by the last one's drop()
  int fd = -1;
  std::byte* at = nullptr;
  size_t bytes = 0;
  char name[64] = {};  // of the file; empty: it has none any more

  static constexpr uint64_t kMagic = 0x31'6d'65'6d'6b'74'73'70;  // "pstkmem1"
  static constexpr size_t kNameSize = sizeof(name) - sizeof(".new") + 1;
};

struct OpenedMemory {
  ZoneMemory* memory = nullptr;       // nullptr: none is to be had; `fault` says why
  std::optional<limit::Table> table;  // what was in it; none: it is fresh, and has nothing in it
  std::string fault;                  // also: why what was there is not used
};

// How often a process waits for another one to let go of a file: a second in all.
constexpr int kAttempts = 20;
void pause_between_attempts() noexcept;

// Opens the file `name`, or makes a new one of `bytes`, and maps it. Waits up to a second for
// another process to let go of it. An Error: it is in use by another Nginx.
// `upgrade`: another Nginx that uses it is our old master. `own`: what an earlier cycle of this
// process has for the same zone, or nullptr.
Result<OpenedMemory> open_memory(const char* name, size_t bytes, bool upgrade,
                                 const ZoneMemory* own);

// Whether another Nginx uses the file `name`; false if there is none.
bool in_use(const char* name);

// Removes the file `name` if it is what an earlier run of ours left, and nobody uses it.
void remove_left(const char* name) noexcept;

// Gives the file its name, in place of whatever has it; with an empty name it has none any more.
// An Error says what the system said, or that somebody has removed the file: it cannot get a name
// again.
Status publish(ZoneMemory& memory, const char* name);

enum class Standing : uint8_t {
  current,     // the file of this name is this memory
  nameless,    // no file has the name: nobody else has a newer memory
  superseded,  // a later cycle or another master has made a new one since
};

Standing standing_of(const ZoneMemory& memory) noexcept;

// For a master that ends: whether no other Nginx uses the memory. If so, none can start to use it
// until it is dropped. If not, this master's lock is given up: when two masters end together, the
// other can have it.
bool lock_alone(const ZoneMemory& memory) noexcept;

// One cycle less uses the memory. The last one unmaps it; a file that was never published goes too.
void drop(ZoneMemory* memory) noexcept;

// The same in a worker, which ends: memory and file are the master's.
void forget(ZoneMemory* memory) noexcept;

}  // namespace penstock
