// Scheduler: which job goes next. It owns the order and nothing else.
//
// A pure object: no socket, no thread, no clock. Time is pushed in with every call, and
// next_event() says until when nothing happens by itself. The server asks it; tests drive it
// through simulated hours.
//
//                add              take                      finish
//    (unknown) ───────▶ waiting ───────▶ running ────────────────▶ (unknown)
//                        ▲  ▲                │ retry
//             advance_to │  └────────────────┤ at once
//                        └──── delayed ◀─────┘ after a back-off; at `attempts`: (unknown)
//
//    from any state: finish (cancelled) or the deadline (advance_to) ──▶ (unknown)
//
// Order: class first, FIFO within it. A job keeps its place for life: one that comes back from a
// dead worker stands where it stood.
//
// Lanes: a queue's jobs are kept in one ordered set per model, and one for jobs that name none.
// A worker of model M takes the earlier of the heads of M's lane and of the any-model lane.
//
// Ownership: the caller owns Tickets (usually as the base of its own job type) and keeps each at
// one address until it is unknown to the scheduler again. Queues and Lanes live as long as the
// Scheduler.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "worker/queue/order_tree.h"
#include "worker/queue/service_time.h"
#include "worker/queue/timer_heap.h"

namespace penstock::queue {

class Scheduler {
 public:
  struct Queue;
  struct Lane;

  // What the scheduler keeps of one job.
  class Ticket : private OrderTree::Node, private TimerHeap::Node {
   public:
    enum class State : uint8_t { kUnknown, kWaiting, kDelayed, kRunning };
    State state() const noexcept { return state_; }
    uint32_t attempts() const noexcept { return attempts_; }  // that have failed
    int64_t arrived_ns() const noexcept { return arrived_ns_; }
    int64_t started_ns() const noexcept { return started_ns_; }  // while running
    Lane* lane() const noexcept { return lane_; }
    const Place& where() const noexcept { return place; }

   private:
    friend class Scheduler;
    State state_ = State::kUnknown;
    uint32_t attempts_ = 0;
    Lane* lane_ = nullptr;
    Lane* served_by_ = nullptr;  // while running: the lane of the worker that took it
    int64_t arrived_ns_ = 0;
    int64_t started_ns_ = 0;
    int64_t deadline_ns_ = INT64_MAX;
  };

  struct QueueSettings {
    std::string name;
    uint32_t max_length = 10'000;  // jobs waiting or delayed
    uint32_t attempts = 3;         // a job is tried at most that often
    int64_t deadline_ns = 0;       // from arrival to the end; 0: none
    int64_t backoff_ns = 0;        // doubled with each further failure, up to kMaxBackoffNs
  };
  static constexpr int64_t kMaxBackoffNs = 300'000'000'000;

  // The jobs of one queue that name one model; the first lane of a queue is for those that name
  // none.
  struct Lane {
    Queue* queue = nullptr;
    std::string model;
    uint32_t capacity = 0;  // jobs its live workers can hold at once
    uint32_t running = 0;   // jobs its workers hold
    ServiceTime service;    // of what its workers completed

   private:
    friend class Scheduler;
    OrderTree waiting_;
    uint32_t last_capacity_ = 1;  // the last that was not 0: predictions while nobody is there
  };

  struct Queue {
    QueueSettings settings;
    Lane& any_model() { return *lanes.front(); }
    uint32_t waiting = 0;  // delayed ones included
    uint32_t running = 0;
    std::vector<std::unique_ptr<Lane>> lanes;
  };

  // Adds a queue, or changes the settings of the one of that name; jobs already in it keep their
  // deadlines.
  Queue& set_queue(const QueueSettings& settings);
  Queue* find_queue(std::string_view name) noexcept;
  std::deque<Queue>& queues() noexcept { return queues_; }
  // The lane of a model; made when it is new. An empty model is the any-model lane.
  Lane& lane(Queue& queue, std::string_view model);
  // What the live workers of a model's lane can hold now, in all.
  void set_capacity(Lane& lane, uint32_t jobs) noexcept;

  // False, and the ticket stays unknown, when the queue is full. O(log n).
  // REQUIRES: ticket is unknown.
  bool add(Ticket& ticket, Lane& lane, int64_t priority, int64_t now_ns);
  static bool full(const Queue& queue) noexcept {
    return queue.waiting >= queue.settings.max_length;
  }

  // The next job for a worker of this lane, now running; nullptr when there is none. O(log n).
  // The caller counts the worker's credit.
  Ticket* take(Lane& worker_lane, int64_t now_ns) noexcept;

  enum class Outcome : uint8_t { kCompleted, kCancelled };
  // The job is over; the ticket is unknown again. Completed running jobs teach the service time.
  void finish(Ticket& ticket, Outcome outcome, int64_t now_ns) noexcept;

  enum class Cause : uint8_t {
    kWorkerLost,  // not the job's fault: the first time it goes back at once
    kJobFailed,   // backs off from the first failure on
  };
  // The attempt failed. True: the job is back, at its old place, perhaps after a back-off. False:
  // that was the last attempt, and the ticket is unknown. REQUIRES: ticket is running.
  bool retry(Ticket& ticket, Cause cause, int64_t now_ns);

  // Ends back-offs that are over, and appends the jobs whose deadline has passed to `expired`;
  // those are unknown on return, `was_running` in step with them.
  struct Expired {
    Ticket* ticket;
    bool was_running;
  };
  void advance_to(int64_t now_ns, std::vector<Expired>& expired);
  int64_t next_event() const noexcept;  // INT64_MAX: never

  // Rank among the jobs that compete for the same workers: 1 is the next to start, 0 is running.
  // Exact. O(log n) per competing lane.
  uint32_t position(const Ticket& ticket) const noexcept;
  // How long until the job starts: work ahead over the drain rate; 0 when it is running or nothing
  // has been learned yet.
  int64_t predicted_wait_ns(const Ticket& ticket) const noexcept;
  // The same for a job of the lowest class that came now.
  int64_t predicted_wait_ns(const Lane& lane) const noexcept;

 private:
  template <typename Visit>
  static void each_competing(const Lane& lane, Visit&& visit);
  static int64_t wait_behind(const Lane& lane, uint32_t ahead) noexcept;
  void leave(Ticket& ticket) noexcept;
  void wait(Ticket& ticket) noexcept;
  static Ticket& ticket_of(OrderTree::Node& node) noexcept { return static_cast<Ticket&>(node); }
  static Ticket& ticket_of(TimerHeap::Node& node) noexcept { return static_cast<Ticket&>(node); }

  std::deque<Queue> queues_;
  TimerHeap timers_;  // the deadline of each job, or its back-off where that ends sooner
  uint64_t arrivals_ = 0;
};

}  // namespace penstock::queue
