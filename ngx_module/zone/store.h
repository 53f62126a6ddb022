// What keeps a zone's counters beyond a cycle, and, with file=PATH, beyond Nginx:
//
//   killed (kill -9 of everything)   they are in tmpfs (memory.h), the next start goes on there
//   stopped, rebooted                a snapshot in PATH (snapshot.h), by the master at its exit,
//                                    and every few seconds by Nginx's cache manager process, as
//                                    nobody else may wait for a disk
//
// At a start the memory in tmpfs is used if it is there, else the snapshot. The tmpfs file is
// removed at a clean exit, once the last snapshot is on disk.
#pragma once

#include "ngx_module/conf/conf.h"
#include "ngx_module/zone/memory.h"
#include "ngx_module/zone/snapshot.h"

namespace penstock {

struct ZoneStore {
  Zone* zone = nullptr;
  SnapshotFile file;  // no path: the zone has no file=
  char memory_name[ZoneMemory::kNameSize] = {};
  const ngx_core_conf_t* core = nullptr;
  ZoneMemory* memory = nullptr;  // nullptr: the table is in Nginx's own shared memory

  // Used by the process that writes:
  int64_t silent_until_ns = 0;  // errors are told once a minute
  int64_t busy_since_ns = 0;    // 0: it isn't
  bool failing = false;
  bool nameless = false;  // at the last look; told at the second, as a reload renames files
  bool told_nameless = false;

  bool durable() const noexcept { return file.path != nullptr; }
};

// Once all zones are read: gives each its store.
ngx_int_t prepare_stores(ngx_conf_t* cf) noexcept;

// The cycle is accepted: its tmpfs files get their names, the cache manager its work.
ngx_int_t commit_stores(ngx_cycle_t* cycle) noexcept;

// The master ends, its workers have: the last snapshots.
void close_stores(ngx_cycle_t* cycle) noexcept;

// What the shared memory of a zone says of its table, to the next cycle. It may be of another
// version of the module.
struct ZoneNote {
  uint64_t magic = kMagic;
  std::byte* table = nullptr;
  size_t bytes = 0;
  ZoneMemory* memory = nullptr;  // that the table is in

  static constexpr uint64_t kMagic = 0x31'65'74'6e'6b'74'73'70;  // "pstknte1"
};

// The note in a zone's shared memory; nullptr if there is none of this version.
ZoneNote* note_of(const ngx_shm_zone_t& shm) noexcept;

// The zone of this name in an earlier cycle, whatever it was; nullptr if there was none.
const ngx_shm_zone_t* find_shared(const ngx_cycle_t* cycle, std::string_view name) noexcept;

// Sets aside a snapshot that is damaged, and tells what became of one that isn't good.
// `instead` says what counters are used. REQUIRES: the zone has its table.
void tell_of(const ZoneStore& store, const FoundSnapshot& found, const char* instead) noexcept;

}  // namespace penstock
