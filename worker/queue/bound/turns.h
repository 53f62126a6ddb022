// Turns: which worker gets the next free slot of a device that several share.
//
// The class counts first: the worker goes whose next job is of the highest class. Within a class it
// is start-time fair queueing over the workers (fair_share.h names the paper), by the time that
// their jobs take. While two workers have jobs waiting, their shares of the device differ by at
// most one job of each for a slot, however long the jobs of either are, and whatever higher classes
// take meanwhile. A worker that had nothing to do is owed nothing for it. Between equals, the
// process goes whose slots are the least used, then the worker that was given no job for longest.
//
// Aging is as within a model's line (scheduler.h). A worker whose next job is of a lower class goes
// before all, once it was given nothing for its queue's `aging` while that job waited. Then none is
// promoted until kTurnsPerPromotion more jobs were given there. A job that was promoted within its
// own line is of a class above all here, too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "worker/queue/bound/budget.h"

namespace penstock::queue {

constexpr size_t kMostTurnClasses = 64;  // past it the lowest is forgotten

constexpr uint64_t kTurnsPerPromotion = 16;
// What a job is expected to take while nothing is known.
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

// The index of the bid whose turn it is. REQUIRES: bids is not empty, all are for one device.
size_t next_turn(std::span<const Bid> bids, int64_t now_ns);
// The worker was given a job of that class, which is expected to take so long. Returns what it is
// charged.
int64_t take_turn(Budget& worker, int64_t priority, int64_t expected_ns, int64_t now_ns);
// The job has taken so long: the charge is put right.
void settle_turn(Budget& worker, int64_t priority, int64_t charged_ns, int64_t took_ns);

}  // namespace penstock::queue
