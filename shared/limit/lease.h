// Lease: a bucket that many hosts share, as one of them sees it.
//
// The bucket itself is in Redis (shared/redis/scripts/lease.lua). A host leases units of it in
// batches and spends them without asking: what its Nginx workers share of a key is in two slots of
// their table.
//
//   held   units that may be spent here, and when the lease ends:
//          | end, 39 bits of ms | being renewed, 1 bit | units, 24 bits |; nothing from its end on
//   told   when the shared bucket is full, by what Redis said last: a TAT as gcra.h has it
//
// A request is decided by what is held; else it is refused by `told` alone, for others can only
// have made the bucket emptier; else Redis must be asked (kAsk). Its answer puts units into `held`,
// or into the hand of the very request that waits for it.
//
// Only one call at a time renews what is held of a key, so that it can say how much that is: the
// mark in the word is its lock, which ends with the lease, whoever dies.
//
// A request that is held back (action=delay) takes a unit that the bucket will have: only Redis can
// say which, so each asks, and goes on at its turn.
//
// While Redis is away (Lessor::is_away) a host goes by its own share: the same bucket at 1/hosts of
// the rate, on `told`, so that it begins with its share of what was left.
#pragma once

#include "shared/limit/policy.h"

namespace penstock::limit {

constexpr uint64_t kMostHeld = (uint64_t{1} << 24) - 1;

// The word of `held`.
struct Held {
  int64_t end_ms = 0;  // steady
  bool renewed = false;
  uint64_t units = 0;

  static Held of(uint64_t word) noexcept {
    return {static_cast<int64_t>(word >> 25), (word >> 24 & 1) != 0, word & kMostHeld};
  }
  uint64_t word() const noexcept {
    return static_cast<uint64_t>(end_ms) << 25 | (renewed ? uint64_t{1} << 24 : 0) | units;
  }
};

// What a process does without Redis.
enum class Without : uint8_t { kLocal, kAllow, kDeny };

// Who stands between this process's shared limits and Redis: one for each zone.
class Lessor {
 public:
  // What was spent of a key: above 0 more than was charged, below 0 given back of what left the
  // state `admitted`. Of a bucket in ticks (gcra.h), else in units.
  virtual void correct(const Policy& policy, const Hash128& key, int64_t amount,
                       uint64_t admitted) noexcept = 0;
  // Units of a concurrency that left the state `admitted` are held still.
  virtual void renew(const Policy& policy, const Hash128& key, uint64_t units,
                     uint64_t admitted) noexcept = 0;
  // The operator's word: nothing is charged to the key any more.
  virtual void forget(const Policy& policy, const Hash128& key) noexcept = 0;

  // Of Redis's servers the one that has this key is away, while others are not.
  virtual bool is_lost(const Hash128& /*key*/) const noexcept { return false; }
  bool is_away(const Hash128& key) const noexcept { return away || (some_away && is_lost(key)); }

  Hash128 incarnation;  // of this host: what an earlier one held is not found
  uint64_t hosts = 1;   // that share, as last heard
  Without without = Without::kLocal;
  bool away = true;        // all of Redis
  bool some_away = false;  // some of its servers

 protected:
  ~Lessor() = default;
};

// Redis keeps time in 1/16 us: a unit's time is rounded up to that, so that both reckon alike.
constexpr uint64_t kTicksPerRedisTick = 1000;

inline uint64_t shared_interval(const GcraPolicy& gcra) noexcept {
  return (gcra.interval + kTicksPerRedisTick - 1) / kTicksPerRedisTick * kTicksPerRedisTick;
}

// The limit becomes one that is shared: a bucket by leases, a window or a log by asking for each
// request.
void make_shared(Policy& policy, Lessor& lessor) noexcept;

// This host's share of a limit, as one of its own in which a request of `cost` has room.
Policy share_of(const Policy& policy, uint64_t cost) noexcept;

// A call that renews what is held of a key.
struct Renewal {
  uint64_t units = 0;  // held as it began, and left to be spent
  uint64_t back = 0;   // taken out, to be given back
  int64_t end_ms = 0;  // when the lock ends
};

// Begins one: false if another is at it, or the table is full. With `give_back` nothing stays held.
// A key that holds nothing is locked until `until_ms`.
template <class Table>
bool begin_renewal(Table& table, const Policy& policy, const Hash128& key, bool give_back,
                   int64_t until_ms, const Instant& now, Renewal& renewal) noexcept;
// Its answer: so many units more, until `end_ms`; what it began with had lapsed unless `valid`.
// Units of a call that has lost its lock stay with nobody.
template <class Table>
void end_renewal(Table& table, const Policy& policy, const Hash128& key, const Renewal& renewal,
                 bool valid, uint64_t granted, int64_t end_ms, const Instant& now) noexcept;
// What is held now; nothing of a lease that has ended.
template <class Table>
Held held_of(const Table& table, const Policy& policy, const Hash128& key,
             const Instant& now) noexcept;

// Redis says that the bucket is full in so many ticks.
template <class Table>
void note_told(Table& table, const Policy& policy, const Hash128& key, uint64_t ahead,
               const Instant& now) noexcept;
// As it was last noted; 0: full, or unknown.
template <class Table>
uint64_t told_of(const Table& table, const Policy& policy, const Hash128& key) noexcept;

// How much of a batch a host holds of a key that it uses `rate` units a second of, where a call
// takes `trip_ns`: 0 where it asks for each request. A unit that lies idle at one host is one that
// another refuses a caller who came just when it was told to, so slow keys and small buckets are
// not hoarded.
uint64_t batch_of(const Policy& policy, double rate, uint64_t hosts, int64_t trip_ns) noexcept;

}  // namespace penstock::limit
