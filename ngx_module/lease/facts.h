// Facts: what all workers of this host know together of one shared zone, in shared memory of its
// own, which a reload keeps and a restart makes anew.
#pragma once

#include <atomic>

#include "ngx_module/conf/conf.h"
#include "ngx_module/conf/sharing.h"

namespace penstock {

enum class Fact : uint8_t {
  kHeld,      // requests' shares of a limit that were paid from what was held
  kWaited,    // ... for which Redis was asked while the request waited
  kAlone,     // ... decided without Redis
  kTimedOut,  // requests that waited in vain
  kTrips,     // calls
  kLeased,    // units taken to be held
  kReturned,  // of these, given back
  kFaults,    // answers that were errors
  kLost,      // connections that ended
};
constexpr size_t kFacts = 9;

struct Facts {
  static constexpr uint64_t kMagic = 0x31'63'66'6b'74'73'6e'70;  // "pnstkfc1"

  uint64_t magic = kMagic;
  limit::Hash128 incarnation;  // of this host: random, of this start of Nginx
  std::atomic<uint64_t> hosts{1};
  std::atomic<uint64_t> logged{0};  // calls so far that have added to logs
  std::atomic<int64_t> said_ns{0};  // when a failure was last told
  std::atomic<uint64_t> counts[kFacts]{};

  void count(Fact fact, uint64_t by = 1) noexcept {
    counts[static_cast<size_t>(fact)].fetch_add(by, std::memory_order_relaxed);
  }
};

// Adds the memory of a zone that is shared. REQUIRES: zone.sharing.
ngx_int_t add_facts(ngx_conf_t* cf, Zone& zone) noexcept;

// REQUIRES: the memory is there.
inline Facts& facts_of(const Sharing& sharing) noexcept {
  return *static_cast<Facts*>(reinterpret_cast<ngx_slab_pool_t*>(sharing.memory->shm.addr)->data);
}

}  // namespace penstock
