#include "ngx_module/zone/store.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <span>
#include <string>

#include "shared/base/clock.h"
#include "shared/limit/siphash.h"

namespace penstock {
namespace {

constexpr int64_t kTellEveryNs = 60 * kNsPerSec;
constexpr ngx_msec_t kLeastPauseMs = 1000;
constexpr int64_t kShare = 50;  // of the time, one part goes into snapshots
constexpr ngx_msec_t kIdlePauseMs = 60'000;
constexpr limit::Secret kNameKey{0x6b636f74736e6570, 0x79726f6d656d};  // fixed: names, not secrets

const char* text(const ngx_str_t& s) noexcept { return reinterpret_cast<const char*>(s.data); }

// PATH and something behind it, in the pool; nullptr when that is exhausted.
const char* extended(ngx_pool_t* pool, const ngx_str_t& path, std::string_view suffix) noexcept {
  auto* out = static_cast<u_char*>(ngx_pnalloc(pool, path.len + suffix.size() + 1));
  if (out != nullptr) {
    u_char* end = ngx_cpymem(out, path.data, path.len);
    end = ngx_cpymem(end, suffix.data(), suffix.size());
    *end = '\0';
  }
  return reinterpret_cast<const char*>(out);
}

bool name_files(ngx_pool_t* pool, ZoneStore& store) noexcept {
  const ngx_str_t& path = store.zone->file;
  ngx_str_t folder = path;
  while (folder.len > 1 && folder.data[folder.len - 1] != '/') {
    --folder.len;
  }
  store.file.path = text(path);
  store.file.temporary = extended(pool, path, ".tmp");
  store.file.damaged = extended(pool, path, ".damaged");
  store.file.folder = extended(pool, folder, "");

  // The path ends with its '\0'.
  const char* both = extended(pool, {path.len + 1, path.data}, view(store.zone->name));
  if (store.file.temporary == nullptr || store.file.damaged == nullptr ||
      store.file.folder == nullptr || both == nullptr) {
    return false;
  }
  const limit::Hash128 id =
      limit::siphash13_128(kNameKey, both, path.len + 1 + store.zone->name.len);
  std::snprintf(store.memory_name, sizeof store.memory_name, "/dev/shm/penstock-%016llx",
                static_cast<unsigned long long>(id.lo));
  return true;
}

// It may be made later: Nginx goes on, and tells of it again.
void warn_of_missing_folder(ngx_conf_t* cf, const Zone& zone, const char* folder) noexcept {
  ngx_file_info_t info;
  if (ngx_file_info(folder, &info) != NGX_FILE_ERROR && ngx_is_dir(&info)) {
    return;
  }
  ngx_str_t name = zone.name;
  warn_at(
      cf, zone.conf_file, zone.conf_line,
      "zone \"%V\": there is no folder \"%s\", so that its counters will be lost by a reboot; make "
      "it, and give it to the user of Nginx's workers",
      &name, folder);
}

// With the cycle, or with the configuration that was not accepted.
void release(void* data) noexcept {
  auto& store = *static_cast<ZoneStore*>(data);
  if (store.memory != nullptr) {
    const bool worker = ngx_process == NGX_PROCESS_WORKER || ngx_process == NGX_PROCESS_HELPER;
    (worker ? forget : drop)(store.memory);
    store.memory = nullptr;
  }
}

// ---- writing ----

void tell_of_failure(ZoneStore& store, const char* what, ngx_log_t* log) noexcept {
  const int64_t now_ns = monotonic_ns();
  if (now_ns >= store.silent_until_ns) {
    store.silent_until_ns = now_ns + kTellEveryNs;
    ngx_log_error(NGX_LOG_ERR, log, 0,
                  "zone \"%V\": no snapshot of its counters can be written: %s; the folder must be "
                  "there, have room, and be writable by the user of Nginx's workers",
                  &store.zone->name, what);
  }
  store.failing = true;
}

void tell_of_busy(ZoneStore& store, ngx_log_t* log) noexcept {
  const std::string what =
      std::string("another process keeps \"") + store.file.temporary + "\" locked";
  tell_of_failure(store, what.c_str(), log);
}

bool write_store(ZoneStore& store, ngx_log_t* log) noexcept {
  auto done = write_snapshot(store.file, *store.zone->table);
  if (!done) {
    store.busy_since_ns = 0;
    tell_of_failure(store, done.error().message.c_str(), log);
    return false;
  }
  if (*done != Write::busy) {
    store.busy_since_ns = 0;
  } else if (store.busy_since_ns == 0) {
    store.busy_since_ns = monotonic_ns();
  } else if (monotonic_ns() - store.busy_since_ns >= kTellEveryNs) {
    tell_of_busy(store, log);
  }
  if (store.failing && *done != Write::busy) {
    store.failing = false;
    store.silent_until_ns = 0;
    ngx_log_error(NGX_LOG_NOTICE, log, 0,
                  "zone \"%V\": snapshots of its counters are written again", &store.zone->name);
  }
  return *done != Write::busy;
}

void tell_if_nameless(ZoneStore& store, Standing standing) noexcept {
  const bool before = store.nameless;
  store.nameless = standing == Standing::nameless;
  if (before && store.nameless && !store.told_nameless) {
    store.told_nameless = true;
    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                  "zone \"%V\": somebody has removed its file \"%s\": a kill -9 of all processes "
                  "will lose what was counted since the last snapshot; restart Nginx",
                  &store.zone->name, store.memory_name);
  }
}

// In the cache manager process; returns the pause until the next call. A later cycle, or the new
// master of a binary upgrade, may use the same memory: both may write then, and the file that comes
// last is the newest. If they have made another memory, this one is over.
ngx_msec_t write_now_and_then(void* data) noexcept {
  auto& store = *static_cast<ZoneStore*>(data);
  const Standing standing =
      store.memory == nullptr ? Standing::current : standing_of(*store.memory);
  if (standing == Standing::superseded) {
    return kIdlePauseMs;
  }
  tell_if_nameless(store, standing);
  const int64_t start_ns = monotonic_ns();
  write_store(store, ngx_cycle->log);
  const int64_t took_ms = (monotonic_ns() - start_ns) / kNsPerMs;
  return std::max(kLeastPauseMs, static_cast<ngx_msec_t>(took_ms * kShare));
}

// Not by ngx_add_path(): that would make the file's folder, and give it to the workers' user.
bool add_to_manager(ngx_cycle_t* cycle, ZoneStore& store) noexcept {
  auto* path = static_cast<ngx_path_t*>(ngx_pcalloc(cycle->pool, sizeof(ngx_path_t)));
  auto** place = static_cast<ngx_path_t**>(ngx_array_push(&cycle->paths));
  if (path == nullptr || place == nullptr) {
    return false;
  }
  path->name = store.zone->file;
  path->manager = write_now_and_then;
  path->data = &store;
  *place = path;
  return true;
}

// ---- the change from one cycle to the next ----

struct Size {
  size_t number;
  const char* unit;
};

Size readable(size_t bytes) noexcept {
  constexpr size_t kMega = 1024 * 1024;
  return bytes % kMega == 0  ? Size{bytes / kMega, "m"}
         : bytes % 1024 == 0 ? Size{bytes / 1024, "k"}
                             : Size{bytes, ""};
}

void tell_of_new_size(ngx_cycle_t* cycle, const Zone& zone) noexcept {
  const ngx_shm_zone_t* old = find_shared(cycle->old_cycle, view(zone.name));
  if (old != nullptr && old->tag == zone.shm->tag && old->shm.size != zone.shm->shm.size) {
    const Size from = readable(old->shm.size);
    const Size to = readable(zone.shm->shm.size);
    ngx_str_t name = zone.name;
    ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                  "zone \"%V\": its size was changed from %uz%s to %uz%s: all counters start anew",
                  &name, from.number, from.unit, to.number, to.unit);
  }
}

void give_name(ZoneStore& store, ngx_log_t* log) noexcept {
  if (store.memory == nullptr) {
    if (store.durable()) {
      remove_left(store.memory_name);  // older than what is used now
    }
    return;
  }
  if (Status done = publish(*store.memory, store.memory_name); !done) {
    ngx_log_error(
        NGX_LOG_ERR, log, 0,
        "zone \"%V\": %s: a kill -9 of all processes will lose what was counted since the "
        "last snapshot",
        &store.zone->name, done.error().message.c_str());
  }
}

// The memory of zones that are no longer configured goes when the old workers have gone.
void abandon_unused(const ngx_cycle_t* old) noexcept {
  each_of<ngx_shm_zone_t>(old->shared_memory, [](const ngx_shm_zone_t& shm) noexcept {
    const ZoneNote* note = note_of(shm);
    if (note != nullptr && note->memory != nullptr && note->memory->cycles == 1) {
      static_cast<void>(publish(*note->memory, ""));
    }
    return true;
  });
}

// ---- the end ----

// A manager that was killed lets go of its files at once, another master that ends too once it has
// written: both within the attempts.

// Whether nobody else uses this memory, nor has a newer one.
bool is_last(const ZoneMemory& memory, int& attempts) noexcept {
  while (standing_of(memory) != Standing::superseded) {
    if (lock_alone(memory)) {
      return standing_of(memory) != Standing::superseded;
    }
    if (attempts == 0) {
      return false;
    }
    --attempts;
    pause_between_attempts();
  }
  return false;
}

bool write_last(ZoneStore& store, ngx_log_t* log) noexcept {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (write_store(store, log)) {
      return true;
    }
    if (store.failing) {
      return false;
    }
    pause_between_attempts();
  }
  tell_of_busy(store, log);
  return false;
}

}  // namespace

ZoneNote* note_of(const ngx_shm_zone_t& shm) noexcept {
  if (shm.shm.addr == nullptr) {
    return nullptr;
  }
  auto* data = static_cast<u_char*>(reinterpret_cast<ngx_slab_pool_t*>(shm.shm.addr)->data);
  const bool inside =
      data >= shm.shm.addr && data + sizeof(ZoneNote) <= shm.shm.addr + shm.shm.size;
  auto* note = reinterpret_cast<ZoneNote*>(data);
  return inside && note->magic == ZoneNote::kMagic &&
                 (note->memory == nullptr || note->memory->magic == ZoneMemory::kMagic)
             ? note
             : nullptr;
}

const ngx_shm_zone_t* find_shared(const ngx_cycle_t* cycle, std::string_view name) noexcept {
  const ngx_shm_zone_t* found = nullptr;
  each_of<ngx_shm_zone_t>(cycle->shared_memory, [&](const ngx_shm_zone_t& shm) noexcept {
    found = view(shm.shm.name) == name ? &shm : found;
    return true;
  });
  return found;
}

void tell_of(const ZoneStore& store, const FoundSnapshot& found, const char* instead) noexcept {
  ngx_log_t* log = store.zone->shm->shm.log;
  const char* fault = found.fault.c_str();
  switch (found.found) {
    case Found::damaged:
      if (rename(store.file.path, store.file.damaged) == 0) {
        ngx_log_error(
            NGX_LOG_ALERT, log, 0,
            "zone \"%V\": its snapshot \"%s\" is damaged: %s; it was set aside as \"%s\": "
            "%s",
            &store.zone->name, store.file.path, fault, store.file.damaged, instead);
      } else {
        ngx_log_error(NGX_LOG_ALERT, log, ngx_errno,
                      "zone \"%V\": its snapshot \"%s\" is damaged: %s; it could not be set aside "
                      "as \"%s\": %s",
                      &store.zone->name, store.file.path, fault, store.file.damaged, instead);
      }
      break;
    case Found::unreadable:
      ngx_log_error(NGX_LOG_ALERT, log, 0,
                    "zone \"%V\": its snapshot \"%s\" cannot be read: %s: %s", &store.zone->name,
                    store.file.path, fault, instead);
      break;
    case Found::other_size:
      ngx_log_error(NGX_LOG_WARN, log, 0,
                    "zone \"%V\": its size was changed: the snapshot \"%s\" has %uL slots, the "
                    "zone now %uL: %s",
                    &store.zone->name, store.file.path, found.slots, store.zone->table->slots(),
                    instead);
      break;
    default:
      break;
  }
}

ngx_int_t prepare_stores(ngx_conf_t* cf) noexcept {
  MainConf& main = *main_conf(cf);
  for (Zone* zone : main.zones) {
    auto* store = make<ZoneStore>(cf->pool);
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(cf->pool, 0);
    if (store == nullptr || cleanup == nullptr) {
      return NGX_ERROR;
    }
    store->zone = zone;
    store->core = reinterpret_cast<const ngx_core_conf_t*>(
        ngx_get_conf(cf->cycle->conf_ctx, ngx_core_module));
    if (zone->file.len != 0 && !name_files(cf->pool, *store)) {
      return NGX_ERROR;
    }
    if (zone->file.len != 0) {
      warn_of_missing_folder(cf, *zone, store->file.folder);
    }
    for (const Zone* other : main.zones) {
      if (other == zone) {
        break;
      }
      if (zone->file.len != 0 && view(other->file) == view(zone->file)) {
        return refuse_at(cf, zone->conf_file, zone->conf_line,
                         "zones \"%V\" and \"%V\" have the same file=%V; give each its own",
                         &other->name, &zone->name, &zone->file);
      }
    }
    cleanup->handler = release;
    cleanup->data = store;
    zone->store = store;
  }
  return NGX_OK;
}

ngx_int_t commit_stores(ngx_cycle_t* cycle) noexcept {
  const MainConf* main = main_conf(cycle);
  if (main == nullptr || ngx_test_config) {
    return NGX_OK;
  }
  const auto* core =
      reinterpret_cast<ngx_core_conf_t*>(ngx_get_conf(cycle->conf_ctx, ngx_core_module));
  for (Zone* zone : main->zones) {
    ZoneStore& store = *zone->store;
    tell_of_new_size(cycle, *zone);
    give_name(store, cycle->log);
    if (!store.durable()) {
      continue;
    }
    store.file.owner = core->user;
    if (!core->master) {
      ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                    "zone \"%V\": with \"master_process off\" its counters are written to \"%V\" "
                    "only when Nginx ends: a reboot before that loses them",
                    &zone->name, &zone->file);
    } else if (!add_to_manager(cycle, store)) {
      return NGX_ERROR;
    }
  }
  abandon_unused(cycle->old_cycle);
  return NGX_OK;
}

void close_stores(ngx_cycle_t* cycle) noexcept {
  const MainConf* main = main_conf(cycle);
  if (main == nullptr) {
    return;
  }
  int attempts = kAttempts;  // for all zones together
  for (Zone* zone : main->zones) {
    ZoneStore& store = *zone->store;
    // Another master goes on with the same memory, or made its own.
    if (!store.durable() || (store.memory != nullptr && !is_last(*store.memory, attempts))) {
      continue;
    }
    const bool written = write_last(store, cycle->log);
    if (store.memory == nullptr) {
      continue;
    }
    if (written) {
      static_cast<void>(publish(*store.memory, ""));
    } else if (standing_of(*store.memory) == Standing::nameless) {
      ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                    "zone \"%V\": what was counted since the last snapshot is lost", &zone->name);
    } else {
      ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                    "zone \"%V\": its counters are left in \"%s\" for the next start", &zone->name,
                    store.memory->name);
    }
  }
}

}  // namespace penstock
