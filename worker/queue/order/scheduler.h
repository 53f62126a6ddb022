// Scheduler: which job goes next. It owns the order and nothing else.
//
// A pure object: no socket, no thread, no clock. Time is pushed in with every call, and
// next_event() says until when nothing happens by itself. The server asks it; tests drive it
// through simulated hours.
//
//                add              take                      finish
//    (unknown) ───────▶ waiting ───────▶ running ────────────────▶ (unknown)
//        │ not_before    ▲  ▲                │ retry, requeue
//        ▼    advance_to │  └────────────────┤ at once
//    scheduled ─────────▶├──── delayed ◀─────┘ after a back-off; at `attempts`: (unknown)
//
// A job that was set apart is delayed, too, until it is taken by name or joins the others again.
//
//    from any state: finish (cancelled) or the deadline (advance_to) ──▶ (unknown)
//
// Order: class first; within a class start-time fair queueing over owners (fair_share.h); first in,
// first out within an owner. A job keeps its place for life: one that comes back from a dead
// worker stands where it stood. The one exception is aging. A scheduled job has no place until it
// is due; it then comes as any newcomer does.
//
// Aging: so that no class starves, a lane may let one job of a lower class go before all others:
// of the heads of its lower classes (lower than one that waits, or than one that was taken since it
// looked last) the one that has waited longest, when that is longer than the queue's `aging`; then
// none for that long again, and none before kTakesPerPromotion more jobs were taken, so that a
// queue of slow jobs is not turned upside down. It is an event of advance_to(), so a position is
// the rank in the order in force at every moment.
//
// Lanes: a queue's jobs are kept apart by model, those that name none in a lane of their own; in a
// lane each class is one ordered set.
// A worker of model M takes the earlier of the heads of M's lane and of the any-model lane.
// Each lane's classes have a virtual time of their own: a model whose jobs go fast does not push
// newcomers behind the backlog of another. Shares therefore hold lane by lane; lanes whose workers
// share a device take turns there (turns.h).
//
// Pause: nothing is taken from a paused queue. It goes on taking jobs in, up to its bounds;
// positions hold, predictions say what the wait would be if it were resumed now, nothing ages, and
// deadlines run.
//
// Ownership: the caller owns Tickets (usually as the base of its own job type) and keeps each at
// one address until it is unknown to the scheduler again. Queues and Lanes live as long as the
// Scheduler.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "worker/queue/order/all_hosts.h"
#include "worker/queue/order/arrival_rate.h"
#include "worker/queue/order/fair_share.h"
#include "worker/queue/order/order_tree.h"
#include "worker/queue/order/owners.h"
#include "worker/queue/order/service_time.h"
#include "worker/queue/order/timer_heap.h"
#include "worker/queue/order/timer_ring.h"
#include "worker/queue/order/wait_spread.h"

namespace penstock::queue {

class CarriedOrder;

class Scheduler {
 public:
  struct Queue;
  struct Lane;
  struct Class;  // the jobs of one priority in one lane
  // A lane some of whose workers are on the same devices as another lane's.
  struct Rival {
    const Lane* lane;
    double part;     // of its slots: those there
    uint32_t slots;  // as many
  };

  // What bounds how fast the jobs of some lanes start, besides their workers. The lanes take turns.
  class Brake {
   public:
    std::vector<const Lane*> lanes;

    virtual ~Brake() = default;
    // When the last of so many jobs, with this cost together, could start.
    virtual int64_t starts_ns(uint64_t jobs, uint64_t cost, int64_t now_ns) const = 0;
  };

  // What is known of a job only while it runs.
  struct Run {
    Class* of = nullptr;
    Lane* served_by = nullptr;  // the lane of the worker that took it
    int64_t started_ns = 0;
    uint32_t cost = 0;
    Run* next = nullptr;  // of those that its lane serves
    Run* last = nullptr;
  };

  // What a job asks for.
  struct Entry {
    uint64_t owner = 0;    // whose share it takes: a keyed hash; not who may see it
    int64_t priority = 0;  // its class; higher goes first. At most kHighest, else cut
    uint64_t cost = 1;     // in the limiter's units; 1 to FairShare::kMaxCost, else cut
    uint64_t weight = 1;   // the owner's share; 1 to FairShare::kMaxWeight, else cut

    // Times are of the clock that is pushed in; times before its 0 are negative.
    int64_t not_before_ns = 0;  // scheduled until then; 0: at once
    int64_t arrived_ns = 0;     // 0: now
    int64_t deadline_ns = 0;    // 0: the queue's own, from its arrival, or from when it is due
    uint32_t attempts = 0;      // that have failed
    bool force = false;         // not refused by bounds: it was promised before
  };
  static constexpr int64_t kHighest = INT64_MAX - 1;  // above it: those that were let before
  static constexpr uint32_t kMaxAttempts = UINT16_MAX;

  // What the scheduler keeps of one job: a cache line, for there may be a million.
  class Ticket : private OrderTree::Node, private TimerHeap::Node {
   public:
    enum class State : uint8_t { kUnknown, kScheduled, kWaiting, kDelayed, kRunning };
    State state() const noexcept { return static_cast<State>(state_); }
    uint32_t attempts() const noexcept { return attempts_; }       // that have failed
    int64_t arrived_ns() const noexcept { return arrived_ns_; }    // a scheduled one: when due
    int64_t started_ns() const noexcept;                           // while running, else 0
    int64_t deadline_ns() const noexcept { return deadline_ns_; }  // INT64_MAX: none
    Lane* lane() const noexcept;                                   // nullptr when unknown
    bool promoted() const noexcept { return promoted_; }

   private:
    friend class Scheduler;
    friend class CarriedOrder;
    friend class TimerRing<Ticket>;
    int64_t due_ns() const noexcept { return deadline_ns_; }
    void state(State next) noexcept { state_ = static_cast<uint64_t>(next); }
    Class& its_class() const noexcept;
    Owner& owner() const noexcept;
    FairShare::Tags tags() const noexcept;

    // A promoted job stands by its arrival: its place is {arrival, start tag}. A scheduled one has
    // no place yet: its place is {priority, 0}, its span the weight.
    uint64_t span_ : 41 = 0;  // from start tag to end tag
    uint64_t attempts_ : 16 = 0;
    uint64_t state_ : 3 = 0;
    bool promoted_ : 1 = false;
    union {
      Class* class_ = nullptr;  // waiting, delayed
      Run* run_;                // running
      Lane* lane_;              // scheduled
    };
    union {
      FairShare::Flow* flow_ = nullptr;  // waiting, delayed, running
      Owner* owner_;                     // scheduled
    };
    int64_t arrived_ns_ = 0;
    int64_t deadline_ns_ = INT64_MAX;
  };

  struct QueueSettings {
    std::string name;
    uint32_t max_length = 10'000;  // jobs waiting, delayed or scheduled
    uint32_t max_per_owner = 0;    // of those, of one owner; 0: as many as max_length
    uint32_t attempts = 3;         // a job is tried at most that often
    int64_t deadline_ns = 0;       // from arrival to the end; 0: none
    int64_t backoff_ns = 0;        // doubled with each further failure, up to kMaxBackoffNs; of
                                   // that, a random part of at least half
    int64_t aging_ns = 0;          // 0: no aging, a lower class may starve
  };
  static constexpr uint64_t kTakesPerPromotion = 16;
  static constexpr int64_t kMaxBackoffNs = 300'000'000'000;
  static constexpr uint32_t kFewAhead = 32;  // predicted slot by slot
  static constexpr uint32_t kFewSlots = 64;

  // The jobs of one queue that name one model; the first lane of a queue is for those that name
  // none.
  struct Lane : private TimerHeap::Node {  // due: when its aging is looked at again
    Lane();
    ~Lane();
    Queue* queue = nullptr;
    std::string model;
    uint64_t context_tokens = 0;  // that it reads and writes at most, as a worker said; 0: not told
    uint32_t capacity = 0;        // jobs its live workers can hold at once
    uint32_t running = 0;         // jobs its workers hold
    int64_t opens_ns = 0;         // while nobody is there: not before then, as far as is known
    bool starting = false;        // while nobody is there: somebody is getting ready
    std::string kind;             // of what its workers make, for whoever asks: "text"; empty: any
    ServiceTime service;  // of what its workers completed; the any-model lane: of all the queue
    WaitSpread spread;    // of the waits that were foretold for its jobs
    AllHosts all_hosts;   // if hosts share its queue, whose jobs' order is elsewhere
    std::vector<const Brake*> brakes;  // each of a part of its workers; none: some have none
    uint64_t braked_turn = 0;          // its last turn, counted over all lanes of a brake

   private:
    friend class Scheduler;
    friend class CarriedOrder;
    bool is_any() const noexcept { return queue->lanes.front().get() == this; }
    uint32_t device_slots_ = 0;  // as was last told
    std::vector<Rival> rivals_;
    ArrivalRate arriving_;                         // while the queue has any
    std::vector<std::unique_ptr<Class>> classes_;  // those without jobs are used again
    OrderTree promoted_;                           // goes before them
    Run* runs_ = nullptr;
    uint64_t running_cost_ = 0;
    uint64_t started_ns_ = 0;            // of the running jobs, summed modulo 2^64
    int64_t highest_taken_ = INT64_MIN;  // priority, since aging was looked at
    uint64_t promoted_at_ = 0;           // Queue::taken_ at the last promotion
    uint32_t last_capacity_ = 1;  // the last that was not 0: predictions while nobody is there
  };

  struct Queue {
    QueueSettings settings;
    Lane& any_model() { return *lanes.front(); }
    uint32_t waiting = 0;    // delayed and scheduled ones included
    uint32_t scheduled = 0;  // of those
    uint32_t running = 0;
    bool paused = false;
    bool retired = false;  // of no configuration any more: nothing new comes
    std::vector<std::unique_ptr<Lane>> lanes;

    // Owners that have a job here.
    size_t owners() const noexcept { return with_jobs_; }

   private:
    friend class Scheduler;
    friend class CarriedOrder;
    Owners owners_;
    size_t with_jobs_ = 0;
    TimerRing<Ticket> deadlines_;  // of all jobs but those in timers_
    uint64_t taken_ = 0;
    bool has_rivals_ = false;  // some lane has, or had
  };

  // `seed` is for the jitter of back-offs.
  explicit Scheduler(uint64_t seed = 1);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Adds a queue, or changes the settings of the one of that name; jobs already in it keep their
  // deadlines.
  Queue& set_queue(const QueueSettings& settings);
  // The queue of that name that is not retired; nullptr: there is none.
  Queue* find_queue(std::string_view name) noexcept;
  const Queue* find_queue(std::string_view name) const noexcept {
    return const_cast<Scheduler*>(this)->find_queue(name);
  }
  // All queues, retired ones too.
  std::deque<Queue>& queues() noexcept { return queues_; }
  // All queues but these, by name, are retired; what is in them stays.
  void retire_all_but(const std::function<bool(std::string_view)>& stays);
  // The lane of a model; made when it is new. An empty model is the any-model lane.
  Lane& lane(Queue& queue, std::string_view model);
  // What the live workers of a model's lane can hold now, in all.
  void set_capacity(Lane& lane, uint32_t jobs) noexcept;
  // How many jobs the devices of this lane hold, of whatever lane, and which other lanes have
  // workers there. If those are more than kMostRivals: the ones with the most slots.
  static constexpr size_t kMostRivals = 16;
  void set_rivals(Lane& lane, uint32_t device_slots, std::vector<Rival> rivals) noexcept;

  enum class Admission : uint8_t { kAdded, kQueueFull, kOwnerFull };
  // Unless it is added, the ticket stays unknown. O(log n). REQUIRES: ticket is unknown.
  Admission add(Ticket& ticket, Lane& lane, const Entry& entry, int64_t now_ns);
  // A scheduled job is due at another time, its deadline as much earlier or later. O(log n).
  // REQUIRES: ticket is scheduled.
  void reschedule(Ticket& ticket, int64_t due_ns);
  static bool full(const Queue& queue) noexcept {
    return queue.waiting >= queue.settings.max_length;
  }

  // Whether the owner has as many jobs waiting as one may.
  static bool full(const Queue& queue, uint64_t owner) noexcept;

  // While a queue is paused, take() gives nothing of it.
  void pause(Queue& queue) noexcept { queue.paused = true; }
  void resume(Queue& queue) noexcept { queue.paused = false; }

  // The next job for a worker of this lane; nullptr when there is none.
  static const Ticket* next(const Lane& worker_lane) noexcept { return first(worker_lane); }
  // The same, now running. O(log n). The caller counts the worker's credit.
  Ticket* take(Lane& worker_lane, int64_t now_ns) noexcept;

  // The same for one that was set apart.
  void take(Ticket& ticket, Lane& worker_lane, int64_t now_ns) noexcept;

  enum class Outcome : uint8_t { kCompleted, kCancelled };
  // The job is over; the ticket is unknown again. Completed running jobs teach the service time.
  void finish(Ticket& ticket, Outcome outcome, int64_t now_ns) noexcept;

  enum class Cause : uint8_t {
    kWorkerLost,       // not the job's fault: the first time it goes back at once
    kJobFailed,        // backs off from the first failure on
    kWorkerLostAlone,  // it was alone there, so it may well be to blame: it is set apart
  };
  // The attempt failed. True: the job is back, at its old place, perhaps after a back-off. False:
  // that was the last attempt, and the ticket is unknown. REQUIRES: ticket is running.
  bool retry(Ticket& ticket, Cause cause, int64_t now_ns);

  // A running job goes back to its old place at once, and no attempt is counted: its worker was
  // told to stop, say. REQUIRES: ticket is running.
  void requeue(Ticket& ticket, int64_t now_ns);
  // The same, but it stands in no line: the one who set it apart takes it by name, or has it join
  // the others. Its deadline runs. REQUIRES: ticket is running.
  void set_apart(Ticket& ticket) noexcept { come_back(ticket); }
  // REQUIRES: it was set apart.
  void join_again(Ticket& ticket, int64_t now_ns) { wait(ticket, now_ns); }
  // The same, but that it may be taken again from `until_ns` on.
  void postpone(Ticket& ticket, int64_t until_ns);

  // Lets in what is due, ends back-offs that are over, ages, and appends the jobs whose deadline
  // has passed to `expired`; those are unknown on return, `was_running` in step with them.
  struct Expired {
    Ticket* ticket;
    bool was_running;
    Lane* lane;      // that it was in
    uint64_t owner;  // whose share it took
  };
  void advance_to(int64_t now_ns, std::vector<Expired>& expired);
  int64_t next_event() const noexcept;  // INT64_MAX: never

  // Rank among the jobs that compete for the same workers: 1 is the next to start; 0 is running or
  // scheduled. Exact. O(log n) per competing lane.
  uint32_t position(const Ticket& ticket) const noexcept;
  // Of those before it, the ones that are so by their class, or as they had waited for long.
  uint32_t ahead_by_class(const Ticket& ticket) const noexcept;
  // The class it came in, also while it is let before. REQUIRES: ticket is known, and not
  // scheduled.
  static int64_t priority_of(const Ticket& ticket) noexcept;
  // The same, but above kHighest while it is let before. REQUIRES: as of priority_of().
  static int64_t rank_of(const Ticket& ticket) noexcept;
  // The owner whose share the ticket takes. REQUIRES: ticket is known.
  static uint64_t owner_of(const Ticket& ticket) noexcept { return ticket.owner().id; }
  // The cost that its entry gave. REQUIRES: ticket is running.
  static uint32_t cost_of(const Ticket& ticket) noexcept { return ticket.run_->cost; }
  // How long until the job starts: the time that the jobs before it and the running ones still
  // need, over the slots that may take them. With few jobs before it, this is done slot by slot, as
  // far as the cost of a job tells its time. Where other lanes have jobs for the same devices,
  // their turns are counted, too. 0 when it runs, when a slot is free for it, or when nothing has
  // been learned yet. What may yet come and go before it is not foreseen. Of a scheduled job: how
  // long until it is due. O(log n) per lane.
  int64_t predicted_wait_ns(const Ticket& ticket, int64_t now_ns) const noexcept;
  // The same for a job that would come now: one of this entry, or of the lowest class (that of 0,
  // or lower if there are such), whom all there precede; on all hosts, where those share the queue.
  int64_t predicted_wait_ns(const Lane& lane, const Entry& entry, int64_t now_ns) const noexcept;
  int64_t predicted_wait_ns(const Lane& lane, int64_t now_ns) const noexcept;
  // The same, and between which times four of five jobs will start (wait_spread.h).
  struct Foretold {
    int64_t wait_ns = 0;
    int64_t soon_ns = 0;
    int64_t late_ns = 0;
    WaitSpread::Told told;  // for came_true()
    int64_t told_ns() const noexcept { return static_cast<int64_t>(told.eta_ns); }
  };
  Foretold foretell(const Ticket& ticket, int64_t now_ns) const noexcept;
  Foretold foretell(const Lane& lane, int64_t now_ns) const noexcept;
  // The same of a job whose order is elsewhere, at that rank. REQUIRES: lane.all_hosts.shared
  static Foretold foretell_at(const Lane& lane, uint32_t rank) noexcept;
  // A job of that lane, of which that was foretold, has started after so long.
  static void came_true(Lane& lane, const Foretold& foretold, int64_t waited_ns) noexcept {
    lane.spread.came_true(foretold.told, static_cast<double>(waited_ns));
  }
  // What a job of that cost usually takes there; 0: nothing is known.
  static int64_t usual_ns(const Lane& lane, uint64_t cost) noexcept;
  // The job is over by then, at the latest. O(log n). REQUIRES: ticket is running.
  void set_deadline(Ticket& ticket, int64_t deadline_ns);
  // What a running job of its cost takes; 0: nothing is known. REQUIRES: ticket is running.
  static int64_t expected_ns(const Ticket& ticket) noexcept;
  // How much longer a running job will take. Its own progress (0 to 1) counts the more, the further
  // it is; the rest is by what jobs of its cost take. 0 when it does not run, or nothing is known.
  int64_t remaining_ns(const Ticket& ticket, int64_t now_ns, double progress = 0) const noexcept;
  // The same, and between which times, four times of five.
  Foretold foretell_end(const Ticket& ticket, int64_t now_ns, double progress = 0) const noexcept;

  // How long the oldest waiting job has waited. Exact while all deadlines are the queue's own and
  // no job came back. Of jobs with other deadlines, only those count that lead their class. O(jobs
  // that came before it and run).
  static int64_t oldest_wait_ns(const Queue& queue, int64_t now_ns) noexcept;
  // Jobs waiting or delayed by class, highest first; the last of kMostClasses stands for all below,
  // too. O(classes).
  struct ClassLength {
    int64_t priority;
    uint32_t waiting;
  };
  static constexpr size_t kMostClasses = 8;
  static std::vector<ClassLength> waiting_by_class(const Queue& queue);

 private:
  friend class CarriedOrder;
  class Prediction;

  // Where a job stands in its lane.
  struct OrderKey {
    int64_t priority;  // above kHighest: promoted
    Place place;

    bool before(const OrderKey& other) const noexcept {
      return priority != other.priority ? priority > other.priority : place.before(other.place);
    }
  };
  template <typename Visit>
  static void each_competing(const Lane& lane, Visit&& visit);
  // What is before a job in a lane: whole lines, and a part of one more.
  struct WorkAhead {
    OrderTree::Sum lines;
    const OrderTree* line;
  };
  static WorkAhead ahead(const Lane& lane, const OrderKey& at) noexcept;
  static const ServiceTime& service_of(const Lane& lane) noexcept;
  static Foretold range_of(const Lane& lane, int64_t wait_ns, int64_t priority) noexcept;
  static Foretold range_of(const WaitSpread& spread, const WaitSpread::Told& told,
                           int64_t wait_ns) noexcept;
  static int64_t lowest_priority(const Lane& lane) noexcept;
  static OrderKey order_key(const Ticket& ticket) noexcept;
  static Ticket* head(const Lane& lane) noexcept;
  static Ticket* first(const Lane& worker_lane) noexcept;
  static void ask_for_next(const OrderTree& line) noexcept;
  static OrderTree& line_of(const Ticket& ticket) noexcept;
  static Class* find_class(const Lane& lane, int64_t priority) noexcept;
  static Class& class_of(Lane& lane, int64_t priority);
  static uint64_t virtual_time(const Lane& lane, int64_t priority) noexcept;
  void age(Lane& lane, int64_t now_ns);
  int64_t promote_one(Lane& lane, int64_t now_ns);
  void line_up(Ticket& ticket, Lane& lane, Owner& owner, int64_t priority, uint64_t weight,
               int64_t now_ns);
  void wait(Ticket& ticket, int64_t now_ns);
  void watch_deadline(Ticket& ticket);
  void unwatch(Ticket& ticket) noexcept;
  void begin(Ticket& ticket, Lane& worker_lane, int64_t now_ns) noexcept;
  void stop_running(Ticket& ticket) noexcept;
  void come_back(Ticket& ticket) noexcept;
  void drop(Ticket& ticket) noexcept;
  Ticket* first_due(int64_t now_ns) noexcept;
  static void count_running(Run& run, bool starts) noexcept;
  static Ticket& ticket_of(OrderTree::Node& node) noexcept { return static_cast<Ticket&>(node); }
  static Ticket& ticket_of(TimerHeap::Node& node) noexcept { return static_cast<Ticket&>(node); }

  std::deque<Queue> queues_;
  TimerHeap timers_;  // of delayed and scheduled jobs, and of deadlines that come out of order
  TimerHeap aging_;   // of lanes where somebody waits
  std::deque<Run> runs_;
  std::vector<Run*> unused_runs_;
  uint64_t arrivals_ = 0;
  uint64_t random_;
};

}  // namespace penstock::queue
