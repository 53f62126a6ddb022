// What a lessee is made of, for its own three files: lessee_waits asks for requests that wait,
// lessee_held renews and gives back what is held, lessee does the calls.
#pragma once

#include "ngx_module/lease/key_name.h"
#include "ngx_module/lease/lessee.h"
#include "ngx_module/request/receipt.h"
#include "shared/base/clock.h"

namespace penstock {

constexpr int64_t kLockMs = 1500;  // no call is under way for longer

// Of a log: which call has admitted a unit, and as which of its units.
constexpr unsigned kUnitBits = 10;
static_assert(limit::kMaxLog <= uint64_t{1} << kUnitBits);

inline void* allocate(size_t bytes) noexcept { return ngx_alloc(bytes, ngx_cycle->log); }

// Hands that are asked for together: the same key, the same cost.
struct Group {
  ngx_rbtree_node_t node;
  ngx_queue_t unsent;  // among those to be asked for, while `queued`
  ngx_queue_t hands;
  limit::Policy policy;
  limit::Hash128 key;
  uint64_t cost;
  bool queued;
  bool under_way;
};

struct Lessee::Call {
  Lessee* lessee;
  limit::Policy policy;
  limit::Hash128 key;
  Group* group = nullptr;
  uint64_t each = 1;  // units of a request
  uint64_t waiting = 0;
  uint64_t batch = 0;
  bool renews = false;
  bool refreshes = false;  // it is Lessee::refresh's
  limit::Renewal renewal;
  int64_t correction = 0;  // Redis's ticks, or units
  uint64_t corrected = 0;  // whose: Hand::admitted
  uint64_t owed = 0;       // besides
  uint64_t refused = 0;    // units, without Redis, since it was asked last
  bool holds = false;      // what it corrects is not given back, but held still
  uint64_t logged = 0;     // this call's number among those that add to logs
  int64_t sent_ns = 0;
};

// What an answer tells of units, and of how many more there is room for.
struct Lessee::Account {
  uint64_t granted = 0, lapsed = 0, spent = 0, over = 0, room = 0;
  bool valid = true;
};

// Of what a key holds, until it is used up or given back.
struct Lessee::Watched {
  ngx_queue_t link;
  limit::Policy policy;
  limit::Hash128 key;
  int64_t due_ns;
  uint64_t units;  // when it was looked at last
};

}  // namespace penstock
