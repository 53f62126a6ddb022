// Waiter: one request on a caller's connection that is still to be answered.
//
//   kAnswer    waits for the job's answer, and is told it as it is made
//   kPromise   waits for 202, or for what comes of the job within `wait=`
//   kEvents    is told what happens to the job, until it ends
//   kOwner     is told what happens to all of an owner's (owner_events.h)
//   kQuestion  waits for the store
//
// A waiter that leaves while the store is still asked is told nothing: `caller` is nullptr then,
// and the waiter goes when the store has spoken.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "worker/queue/jobs/queue_news.h"
#include "worker/queue/order/timer_heap.h"

namespace penstock::queue {

class Caller;
struct Job;
struct OwnerStream;

struct Waiter : TimerHeap::Node {  // due: a sign of life, a change of place, or the end of `wait=`
  enum class Kind : uint8_t { kAnswer, kPromise, kEvents, kOwner, kQuestion };

  Caller* caller = nullptr;
  uint64_t id = 0;  // on the caller's connection
  Kind kind = Kind::kAnswer;
  static constexpr int64_t kToTheEnd = INT64_MAX;
  bool duplicate = false;  // joined a job that was there
  bool websocket = false;
  uint32_t asking = 0;  // answers of the store that are still to come
  Job* job = nullptr;
  Waiter* next = nullptr;  // of the same job
  int64_t wait_ns = 0;     // kPromise: so long it would rather have the answer; or kToTheEnd
  int64_t wait_ends_ns = INT64_MAX;     // kPromise: 202 then, and no later
  uint64_t told_bytes = 0;              // kEvents: of the answer
  ToldWait told;                        // kEvents: that was said last
  int64_t told_ns = 0;                  // kEvents, kOwner: when anything was said last
  bool progress_due = false;            // kEvents: there is something to say, but not so soon
  std::string jobs_path;                // where its asker sees jobs
  std::shared_ptr<OwnerStream> stream;  // kOwner
  std::unique_ptr<QueueNews> news;      // kAnswer: its stream speaks while the job waits

  // What was charged for its request is the job's from now on, not the request's.
  bool holds_promise() const noexcept { return kind == Kind::kPromise && !duplicate; }

  std::list<Waiter>::iterator self;  // in the Subscribers's list, which owns it
};

}  // namespace penstock::queue
