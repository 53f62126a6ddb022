// Budget: how many jobs may run at once, and what they may hold, counted over several processes.
//
// A device has one; so has each worker on it, whose parent is the device's. A job is given to a
// process only while every budget above it has a free slot, and holds memory there only once that
// was granted. penstockd counts, and nobody else.
//
// A process may take all of its memory when it starts. What is set aside for such processes is not
// granted to jobs, even while they do not run.
//
// A Seat is one process's part. What it has taken stays counted until the process gives it back
// or is reaped, not when its connection closes: a process that was told to die may still be
// running. That is why no crash, restart, reload or change of scale passes the bound.
//
// Memory is granted in the order in which it was asked for. A job that fits does not overtake one
// that does not, so no wait is longer than what runs. There is one exception: while a worker's own
// budget is full, its job lets the jobs of other workers on the device pass.
#pragma once

#include <algorithm>
#include <cstdint>
#include <list>
#include <optional>
#include <string>

#include "worker/queue/bound/adaptive_slots.h"
#include "worker/queue/bound/turn_tags.h"

namespace penstock::queue {

struct Budget {
  std::string name;             // for people: "device 0", "worker demo"
  uint32_t slots = 0;           // jobs at once
  int64_t memory_bytes = 0;     // 0: not bounded
  int64_t set_aside_bytes = 0;  // of it, for processes that take theirs when they start
  Budget* parent = nullptr;     // outlives this

  uint32_t busy = 0;       // above `slots` only after these were lowered
  uint32_t running = 0;    // jobs: of the busy slots, those whose job has not ended
  int64_t held_bytes = 0;  // by jobs, and by processes:
  int64_t reserved_bytes = 0;
  uint32_t seats = 0;  // while there are any, the budget must stay
  TurnTags tags;       // whose turn it is, where several share the device

  // `slots: auto`: finds by trying how many of `slots` to use. It is told when each job starts and
  // ends.
  std::optional<AdaptiveSlots> adaptive;
  uint32_t told_limit = 0;  // as was last seen, and said
  uint32_t told_usual = 1;
  int64_t told_ns = INT64_MIN / 2;
  uint32_t limit() const { return adaptive ? std::min(slots, adaptive->limit()) : slots; }
  // The same for predictions: without what is only tried just now.
  uint32_t usual() const { return adaptive ? std::min(slots, adaptive->settled()) : slots; }

  // The widest: the device's.
  Budget& device() { return parent == nullptr ? *this : *parent; }
  const Budget& device() const { return parent == nullptr ? *this : *parent; }
  // Free in this one and in all above it.
  uint32_t free_slots() const;
  // Whether a process that takes `bytes` when it starts fits.
  bool has_room(int64_t bytes) const;
  // Whether a job that takes `bytes` fits into this budget, whatever is above it.
  bool can_grant(int64_t bytes) const;
};

class Seat;

// Claims: what the seats of one device have asked for and were not granted yet.
class Claims {
 public:
  // Grants what fits now, first come first served.
  void advance();
  size_t waiting() const { return claims_.size(); }
  // In the order in which they came: visit(seat, job, bytes).
  template <typename Visit>
  void each(Visit&& visit) const {
    for (const Claim& claim : claims_) {
      visit(*claim.seat, claim.job, claim.bytes);
    }
  }

 private:
  friend class Seat;
  struct Claim {
    Seat* seat;
    uint64_t job;
    int64_t bytes;
  };
  std::list<Claim> claims_;
  bool granting_ = false;
};

class Seat {
 public:
  // Told when a claim is granted.
  class Claimant {
   public:
    virtual ~Claimant() = default;
    virtual void on_granted(uint64_t job, int64_t bytes) = 0;
  };

  // Both outlive this.
  Seat(Budget& budget, Claims& claims);
  ~Seat();
  Seat(const Seat&) = delete;
  Seat& operator=(const Seat&) = delete;

  Budget& budget() const { return budget_; }
  Claims& claims() const { return claims_; }
  uint32_t free_slots() const { return budget_.free_slots(); }
  uint32_t busy() const { return busy_; }
  int64_t held_bytes() const { return held_bytes_; }

  // REQUIRES: free_slots() > 0.
  void take_slot();
  // `jobs` jobs are out of the process. At most busy() of them count.
  void return_slots(uint64_t jobs);

  // Asks for a job's memory: on_granted() is called, now or later. False: it has asked already.
  bool claim(uint64_t job, int64_t bytes, Claimant& claimant);
  // The job's memory is not wanted any more. Nothing happens if it was granted.
  void withdraw(uint64_t job);
  // Nobody is left who would be told: all claims are dropped.
  void withdraw_all();
  // The process is gone: all is given back.
  void release();
  // Memory that is held as long as the process lives, whatever it runs.
  void reserve(int64_t bytes);
  void return_bytes(uint64_t bytes);
  // What its process has taken in an earlier life of penstockd, whatever the bounds are now.
  void take_over(uint32_t busy, int64_t granted_bytes) {
    add_busy(busy);
    add_held(granted_bytes);
  }
  int64_t granted_bytes() const { return held_bytes_ - reserved_bytes_; }

 private:
  friend class Claims;
  void add_busy(int64_t jobs);
  void add_held(int64_t bytes);
  void add_reserved(int64_t bytes);

  Budget& budget_;
  Claims& claims_;
  Claimant* claimant_ = nullptr;
  uint32_t busy_ = 0;
  int64_t held_bytes_ = 0;
  int64_t reserved_bytes_ = 0;  // of these
};

}  // namespace penstock::queue
