// Facts: what all workers of this host know together of one shared zone, in shared memory of its
// own, which a reload keeps and a restart makes anew.
#pragma once

#include <array>
#include <atomic>

#include "ngx_module/conf/conf.h"
#include "ngx_module/conf/sharing.h"

namespace penstock {

// Of a worker process: whether it asks Redis.
enum class Breaker : uint8_t { kNone, kClosed, kOpen };

enum class Fact : uint8_t {
  kHeld,      // requests' shares of a limit that were paid from what was held
  kWaited,    // ... for which Redis was asked while the request waited
  kAlone,     // ... decided without Redis
  kTimedOut,  // requests that waited in vain
  kTrips,     // calls
  kNeedless,  // requests that waited though the key held enough, or was known to be empty
  kFaults,    // answers that were errors
  kLost,      // connections that ended
};
constexpr size_t kFacts = 8;

// Units of one limit.
enum class Units : uint8_t {
  kLeased,    // taken to be held
  kUsed,      // of these, spent, as Redis was told
  kReturned,  // given back
  kLapsed,    // of leases that ended, of any host, as this one's call found
  kOver,      // admitted without Redis, and more than it had room for when it was told
  kUnder,     // refused without Redis, though it had room when it was asked again
};
constexpr size_t kUnitEvents = 6;

struct LimitFacts {
  std::atomic<uint64_t> name{0};  // its policy's first half; 0: of no limit yet
  std::atomic<uint64_t> units[kUnitEvents]{};

  void count(Units event, uint64_t by) noexcept {
    if (by != 0) {
      units[static_cast<size_t>(event)].fetch_add(by, std::memory_order_relaxed);
    }
  }
  uint64_t counted(Units event) const noexcept {
    return units[static_cast<size_t>(event)].load(std::memory_order_relaxed);
  }
};

// How long requests waited.
struct Waits {
  static constexpr std::array<uint64_t, 11> kBoundsNs = {
      100'000,    200'000,    500'000,    1'000'000,   2'000'000,  5'000'000,
      10'000'000, 20'000'000, 50'000'000, 100'000'000, 500'000'000};

  std::atomic<uint64_t> counts[kBoundsNs.size() + 1]{};  // of each bucket alone; the last: longer
  std::atomic<uint64_t> sum_ns{0};

  void observe(uint64_t ns) noexcept;
};

// What hosts sign challenges and passes by, as Redis has it (shared_secret.h). Read and written
// under the mutex of its memory's pool.
struct KnownSecret {
  using Bytes = std::array<uint8_t, 32>;
  std::atomic<uint64_t> turn{0};  // how often it was another; 0: it is not known
  Bytes now{}, before{};
};

struct Facts {
  static constexpr uint64_t kMagic = 0x33'63'66'6b'74'73'6e'70;  // "pnstkfc3"
  static constexpr size_t kMostLimits = 128;

  uint64_t magic = kMagic;
  limit::Hash128 incarnation;  // of this host: random, of this start of Nginx
  std::atomic<uint64_t> hosts{1};
  std::atomic<uint64_t> logged{0};  // calls so far that have added to logs
  std::atomic<int64_t> said_ns{0};  // when a failure was last told
  std::atomic<uint64_t> counts[kFacts]{};
  std::atomic<Breaker> breakers[NGX_MAX_PROCESSES]{};  // by ngx_process_slot
  KnownSecret secret;
  Waits waits;
  LimitFacts limits[kMostLimits + 1]{};  // the last: of those that found no place

  void count(Fact fact, uint64_t by = 1) noexcept {
    counts[static_cast<size_t>(fact)].fetch_add(by, std::memory_order_relaxed);
  }
  // Of the limit of this name.
  LimitFacts& of(const limit::Hash128& name) noexcept;
};

// Adds the memory of a zone that is shared. REQUIRES: zone.sharing.
ngx_int_t add_facts(ngx_conf_t* cf, Zone& zone) noexcept;

// REQUIRES: the memory is there.
inline Facts& facts_of(const Sharing& sharing) noexcept {
  return *static_cast<Facts*>(reinterpret_cast<ngx_slab_pool_t*>(sharing.memory->shm.addr)->data);
}

}  // namespace penstock
