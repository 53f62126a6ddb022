// Turns: which worker gets the next free slot of a device that several share.
//
// Class first: whose next job is of the highest. Within a class start-time fair queueing over the
// workers (fair_share.h names the paper), by the time that their jobs take: while two of them have
// jobs waiting, what they were given of the device differs by at most one job of each for a slot,
// however long the jobs of either are, and whatever higher classes take meanwhile. One that had
// nothing to do is owed nothing for it. Between equals goes the process whose slots are the least
// used, then the worker that was given none for longest.
//
// Aging, as within a model's line (scheduler.h): of the workers whose next job is of a lower class,
// one that was given nothing for its queue's `aging`, while that job waited, goes before all; then
// none does before kTurnsPerPromotion more jobs were given there. A job that was let before within
// its own line is of a class above all, here as there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "worker/queue/bound/budget.h"

namespace penstock::queue {

constexpr size_t kMostTurnClasses = 64;  // past it the lowest is forgotten

constexpr uint64_t kTurnsPerPromotion = 16;
// What a job is thought to take while nothing was learned.
constexpr int64_t kUnknownJobNs = 1'000'000'000;

// A process that has a free slot, and a job for it.
struct Bid {
  Budget* worker;
  int64_t priority;    // of the job
  int64_t arrived_ns;  // likewise
  int64_t aging_ns;    // of its queue; 0: nobody ages there
  uint32_t busy;       // of the process's slots
  uint32_t slots;
};

// The place of the one that is next. REQUIRES: bids is not empty, all are for one device.
size_t next_turn(std::span<const Bid> bids, int64_t now_ns);
// It was given the job of that class, which is expected to take so long; returns what it is
// charged.
int64_t take_turn(Budget& worker, int64_t priority, int64_t expected_ns, int64_t now_ns);
// The job took so long: what was charged is put right.
void settle_turn(Budget& worker, int64_t priority, int64_t charged_ns, int64_t took_ns);

}  // namespace penstock::queue
