// Dispatcher: brings jobs and workers' credit together, and sees each job to its end.
//
// It owns every job from when it was let in (intake.h) and asks the Scheduler which is next. It
// speaks to workers through sessions, and to those who wait through the Subscribers. A promise is
// written by the Store before anybody is told of it. It knows no process and opens no socket.
//
//     let in ──▶ waiting ──▶ running ──▶ conclude() ──store──▶ ended(): everybody is told; gone
//                  ▲  put_back() │            ▲
//                  └─────────────┴── deadline, cancelled, last attempt failed
//
// Invariants, true whenever no call is in progress:
//   - no job waits while a worker that may take it has credit, unless its queue is paused, or all
//     that is left while draining was promised;
//   - a job is in jobs_ and known to the scheduler; or in jobs_, and the store is looking up its
//     key or writing its end; or gone;
//   - it is in a worker's list exactly while the scheduler calls it running;
//   - a job that was not promised is gone when nobody waits for it any more.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shared/limit/siphash.h"
#include "shared/wire/messages.h"
#include "shared/wire/status_page.h"
#include "worker/queue/clock/time_of_day.h"
#include "worker/queue/config/config.h"
#include "worker/queue/jobs/checks.h"
#include "worker/queue/jobs/job.h"
#include "worker/queue/jobs/job_spans.h"
#include "worker/queue/jobs/job_table.h"
#include "worker/queue/jobs/job_view.h"
#include "worker/queue/jobs/metrics.h"
#include "worker/queue/jobs/owned_jobs.h"
#include "worker/queue/jobs/owner_events.h"
#include "worker/queue/jobs/paces.h"
#include "worker/queue/jobs/prediction_log.h"
#include "worker/queue/jobs/promise_replies.h"
#include "worker/queue/jobs/ready_workers.h"
#include "worker/queue/jobs/served_models.h"
#include "worker/queue/jobs/shared_charges.h"
#include "worker/queue/jobs/subscribers.h"
#include "worker/queue/jobs/suspects.h"
#include "worker/queue/jobs/usage_ledger.h"
#include "worker/queue/jobs/worker_session.h"
#include "worker/queue/order/scheduler.h"
#include "worker/queue/store/store.h"

namespace penstock::queue {

class Dispatcher final : public WorkerEvents, public SharedQueue::User {
 public:
  // Bodies of promised jobs are kept in memory, beside the disk, up to this much together.
  static constexpr int64_t kWarmBytes = int64_t{512} << 10;

  // While the disk fails, a promised job that could start is looked at again so often.
  static constexpr int64_t kPostponeNs = 2 * kNsPerSec;
  // The most postponed jobs that are looked at before others are heard.
  static constexpr int kMostPostponed = 1000;
  // The most that Redis keeps of one answer, if limits.max_result is not less.
  static constexpr uint64_t kMostSharedResult = uint64_t{16} << 20;
  // An owner whose jobs take too much room is told to come back then: some will have expired.
  static constexpr uint64_t kShareRetrySeconds = 60;

  // Reads its clock from `connections`, which must outlive it; `wall_clock` tells the time of day
  // in ms, and may be stepped: dates are by it as it is, all else goes on by elapsed time.
  explicit Dispatcher(ConnectionLoop& connections, int64_t (*wall_clock)() = TimeOfDay::unix_ms);
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  // The store that writes promises. Without it, none are made. It outlives this. Call this first.
  void use(Store& store);
  Store* store() { return store_; }
  // The queues that hosts share. Without it, there are none. It outlives this.
  void use(SharedJobs& shared);
  SharedJobs* shared() const { return shared_; }
  // A job as such a queue takes it in, by what is to be kept of it. REQUIRES: its queue is shared.
  // `body`: the encoded record and its frame.
  Newcomer newcomer(const JobRecord& record, std::string body);
  // nullptr: hosts do not share it.
  SharedQueue* shared(const Scheduler::Queue& queue) const {
    return shared_ == nullptr ? nullptr : shared_->find(queue.settings.name);
  }
  // The same, but nullptr also while Redis is away and this host serves its own callers meanwhile
  // (`on_error: local`).
  SharedQueue* shared_now(const Scheduler::Queue& queue) const {
    SharedQueue* const found = shared(queue);
    return found != nullptr && (!is_local_on_error(queue) || !found->is_away(monotonic_ns()))
               ? found
               : nullptr;
  }
  bool is_local_on_error(const Scheduler::Queue& queue) const {
    return notes_.at(&queue).config.local_on_error;
  }
  // Told of each promised job that asked for a webhook, once its end is on disk.
  std::function<void(const JobId&, uint64_t share)> on_callback_due;
  // What an operator's hooks are to be told of the end of a promised job, for the store to keep
  // with it; and told when that is on disk.
  std::function<std::vector<Notice>(const JobView&, bool dead)> notices;
  std::function<void()> on_notices_due;
  bool tells_hooks = false;  // there are some
  // A key has used much of a quota, as an edge says.
  std::function<void(const wire::QuotaNotice&)> on_quota;
  // A job that hosts share, and that asked for a webhook, has ended here.
  std::function<void()> on_shared_callback_due;
  // A job that no host shares has ended, for the feed.
  std::function<void(const JobRecord&)> on_event;
  // Of jobs that have ended here, and whose trace is sampled.
  std::function<void(Span)> on_span;

  // Takes over queues, workers and limits. Callers whose job nobody serves any more get 404.
  void apply(const Config& config);

  // ---- called by the intake ----
  // The trace that it belongs to, as it is kept; empty: none. REQUIRES: it has just come.
  std::string begin_trace(Job& job, const Traced& from);
  // An id that no job here has had.
  JobId new_id() { return ids_.make(wall_ms()); }
  // The job comes in under a new id, with its first waiter. Next is enqueue(), or, when its key
  // must be looked up first, whatever that shows.
  Job& let_in(Waiter& waiter, const limit::Hash128& owner, std::string frame);
  // REQUIRES: the scheduler's bounds have room, or entry.force.
  void enqueue(Job& job, Scheduler::Lane& lane, const Scheduler::Entry& entry);
  // Has the store write it; those who wait for the promise are told then. After enqueue().
  void promise(Job& job, JobRecord record);
  // In place of these: its order is in Redis, where it has been added; who waits for it is told.
  void hand_over(Job& job, Scheduler::Lane& lane, uint64_t share, bool promised);
  // A job that was handed over on another host, or before: it is watched until it ends.
  Job& watch(SharedQueue& queue, const JobRecord& record, const SharedOrder::Known& known);
  // Somebody has joined that job who asks for its answer as it is made.
  void listen(Job& job, const SharedOrder::Known& known);
  // Others may join the job by `key` until it has ended.
  void register_key(Job& job, const limit::Hash128& key, const limit::Hash128& digest);
  Job* find_key(const limit::Hash128& key) const;
  // Whether its answer goes to the store.
  static bool is_stored(const Job& job);
  // ... for others alone, who ask the same later.
  static bool is_spare(const Job& job);
  // Whether the store can take more answers. REQUIRES: there is one.
  bool keeps_up() const;
  // Promised jobs of an owner that have not ended and are older than that one; newest first.
  std::vector<Job*> live_jobs(uint64_t owner, const std::optional<JobId>& before,
                              size_t most) const;
  // The worker to show a job of this lane to before it is promised; nullptr: none, or not now.
  WorkerSession* checker(const Scheduler::Lane& lane, bool completion, size_t bytes) const;
  // The job is in no queue, and is not wanted after all.
  void forget(Job& job);
  // While jobs are restored: the time of day may be wrong, deadlines begin anew.
  bool clock_doubted = false;
  // A promised job from an earlier life, or one of the dead.
  void restore(JobRecord&& record);
  // One that had ended in an earlier life, and that the edge is still to settle.
  void restore_over(const JobRecord& record);
  // A shared one, of which the edge still holds what this receipt says; and one that is not there.
  void recall(SharedQueue& queue, const JobRecord& record, std::string_view receipt);
  void refund(const JobId& id, std::string_view receipt);
  void settled(uint64_t number);  // the edge has seen to the receipt of that job

  // ---- called by callers ----
  // The waiter has left, or need not be answered any more. `spent`: what the edge has settled for
  // it.
  void release(Waiter& waiter, const UsageCounts* spent = nullptr);
  // The same of a request that is over.
  void correct_usage(Caller& caller, uint64_t id, const UsageCounts& spent);
  // A job that hosts share was cancelled, and runs nowhere here.
  void count_cancelled(const JobRecord& record);
  // A request was answered by a job that was there.
  void count_joined(const Scheduler::Lane& lane, uint64_t owner);
  // The owner or the operator wants it. Those who wait for the answer are told.
  void cancel(Job& job);

  // ---- called by workers ----
  void worker_ready(WorkerSession& worker);
  // Its jobs go back, or fail. `why` says what became of the worker: "was killed by ...".
  // `next_start_ns`: when another is started. `ordered`: we ended it, and its jobs are not at
  // fault: that does not count as an attempt.
  void worker_lost(WorkerSession& worker, int64_t next_start_ns, std::string_view why,
                   bool ordered = false);
  void worker_leaving(WorkerSession& worker);
  // Gives jobs to the workers on a device as long as they have credit, in turn (turns.h).
  void fill(const Claims& device) override;
  void fill_all();
  void recount() override;
  void on_head(Job& job, const wire::Head& head) override;
  void on_chunk(Job& job, std::string_view bytes, std::string_view frame) override;
  void on_progress(Job& job, const wire::Progress& progress, std::string_view frame) override;
  void on_preview(Job& job, const wire::Preview& preview) override;
  void on_done(Job& job, const wire::Done& done, std::string_view frame) override;
  void on_failed(Job& job, const wire::Failed& failed) override;
  void on_slots(WorkerSession& worker) override;
  bool on_checked(uint64_t number, const wire::Checked& checked) override {
    return checks_.answered(number, checked);
  }
  wire::ServingMetrics& serving(const Scheduler::Lane& lane) override {
    return metrics_.serving(lane.queue->settings.name, lane.model);
  }
  // Asks the job's worker for more of its answer, if enough of what came was taken and somebody
  // reads on. Called again when a reader has caught up.
  void widen(Job& job);

  void on_taken(SharedQueue& queue, const SharedOrder::Taken& taken) override;
  void on_lost(SharedQueue& queue, const std::string& id) override;
  void on_position(SharedQueue& queue, const std::string& id, int64_t position) override;
  std::string on_asked(SharedQueue& queue, std::string_view asked) override;
  HostSays says(const SharedQueue& queue) const override;
  void on_roster(SharedQueue& queue) override;

  // Deadlines, back-offs and signs of life.
  void advance_to(int64_t now_ns);
  // penstockd did not run for `ns`. The time that is pushed in leaves that out.
  void note_stall(int64_t ns) { time_.note_stall(ns); }
  int64_t next_event() const;

  // A paused queue takes jobs in, and gives none out.
  void pause(Scheduler::Queue& queue);
  void resume(Scheduler::Queue& queue);

  void drain();  // from now on, new jobs get 503
  bool draining() const { return draining_; }
  // How many jobs a stop should wait for: those that run, and those that somebody waits for.
  size_t unfinished() const;
  // The time to finish is over: whoever still waits is told. What was promised stays on disk.
  void give_up();
  size_t jobs() const { return jobs_.size(); }
  Job* find(const JobId& id) const { return jobs_.find(ulid_of(id)); }

  Scheduler& scheduler() { return scheduler_; }
  const Scheduler::Queue* find_queue(std::string_view name) const {
    return scheduler_.find_queue(name);
  }
  ServedModels& served() { return served_; }
  Paces& paces() { return paces_; }
  Subscribers& subscribers() { return subscribers_; }
  OwnerEvents& owner_events() { return owner_events_; }
  PromiseReplies& replies() { return replies_; }
  UsageLedger& usage() { return usage_; }
  Checks& checks() { return checks_; }
  EdgeLines& edges() { return edges_; }
  ConnectionLoop& connections() { return connections_; }
  const LimitsConfig& limits() const { return limits_; }
  Metrics& metrics() { return metrics_; }
  const PredictionLog& predictions() const { return predictions_; }
  // Never accepted: 4xx, 503.
  uint64_t refused() const { return refused_; }
  void note_refused() { ++refused_; }
  void count(const Scheduler::Queue& queue, Metrics::Event event);
  int64_t frame_bytes() const { return frame_bytes_; }
  int64_t wall_ms() const { return time_.ms(); }
  bool tells_spans() const { return traces_.on(); }
  int64_t keeping_ms() const { return time_.keeping_ms(connections_.now_ns()); }

  // The latest time at which callers that were refused were told to come back.
  void note_return(const Scheduler::Queue& queue, int64_t at_ns) {
    int64_t& until_ns = notes_.at(&queue).returns_until_ns;
    until_ns = std::max(until_ns, at_ns);
  }
  int64_t returns_until_ns(const Scheduler::Queue& queue) const {
    return notes_.at(&queue).returns_until_ns;
  }
  // Predicted, for a job of the lowest class that came now.
  int64_t wait_for_newcomer_ns(Scheduler::Queue& queue) const;
  int64_t drain_retry_s(const Scheduler::Queue& queue) const;
  // Jobs that the queue's live workers can run at once.
  uint32_t slots(const Scheduler::Queue& queue) const { return notes_.at(&queue).slots; }

  struct Availability {
    wire::QueueState state = wire::QueueState::kOpen;
    int64_t retry_after_s = 1;  // when it is not open
    bool unattended = false;    // nobody there is worth waiting for
  };
  // For a job of this lane that came now.
  Availability availability(const Scheduler::Lane& lane) const;

 private:
  friend class JobsHandOver;
  void offer(const Scheduler::Lane& lane);
  void give(WorkerSession& worker, Job& job);
  void note_end(const Job& job, AdaptiveSlots::End end, double work = 0);
  void deliver(Job& job);
  void fetched(const JobId& id, uint64_t number, Result<std::string> frame);
  void follow_clock();
  void revoke(Job& job);
  bool give_suspect(const Claims& device);
  bool start_over(Job& job, std::string_view why);
  void take_back(Job& job, std::string_view why);
  void crashed(WorkerSession& worker, std::vector<Job*>& jobs, std::string_view why);
  bool put_back(Job& job, Scheduler::Cause cause, std::string_view why);
  void abandon(Job& job, const UsageCounts* spent = nullptr);
  void forget_unwatched(Job& job);
  bool abandon_if_unwanted(Job& job);
  void expire(Job& job);
  void note_queue(const QueueConfig& queue);
  void set_brakes(const Config& config);
  void fail_unserved();
  void turn_away_unattended();
  void hold(Job& job, std::string frame);
  void let_go(Job& job);
  void trim(Job& job);
  void spill(Job& job);
  void show(Job& job);
  bool postponed(Job& job);
  bool bound_answer(Job& job);
  void start_anew(Job& job);
  void fail_running(Job& job, const std::string& why);
  void lost_result(const JobId& id, const std::string& why);
  void promised(const JobId& id, PromiseOutcome outcome);
  void withdraw(Job& job, const wire::Failed& failed);
  void turn_away(Job& job, const wire::Failed& failed);
  int64_t started_ms(const Job& job) const;
  JobEnd end_of(const Job& job, JobStatus status) const;
  static JobView view_at_end(const Job& job, const JobEnd& end);
  static JobRecord record_at_end(const Job& job, const JobEnd& end);
  void end_with(Job& job, JobStatus status, const wire::Failed& failed, bool dead = false,
                int64_t started_ms = 0);
  void conclude(Job& job, JobEnd end, Scheduler::Outcome outcome);
  void keep(const Job& job, const JobEnd& end, std::function<void(const JobEnd&)> on_done);
  void ended(Job& job, const JobEnd& end);
  void tell_hooks(const Job& job, const JobEnd& end);
  // dispatcher_usage.cc:
  UsageKey usage_key(const Job& job) const;
  static UsageCounts usage_of_waited(const JobEnd& end);
  bool counts_here(const Job& job) const;
  void count_usage(const Job& job, const JobEnd& end);
  static UsageCounts usage_of_cancelled(const UsageCounts* spent);
  void count_left(Job& job, const UsageCounts* spent);
  void count_leaver(Job& job, bool duplicate, const UsageCounts& spent);
  void count_shared(const Job& job, const JobEnd& end);
  void let_edge_settle(Job& job, const JobEnd& end);
  void let_charge_stand(Job& job);
  void erase(Job& job);
  // Of queues that hosts share (dispatcher_shared.cc):
  void ask_for_shared();
  void refuse_early(const Job& job);
  void conclude_shared(Job& job, JobEnd end);
  void ended_shared(const JobEnd& end, SharedOrder::End how);
  void give_back(Job& job, std::optional<Scheduler::Cause> cause);
  void send_away(Job& job);
  void look_for_end(SharedQueue& queue, const JobId& id);
  void end_away(Job& job, const SharedOrder::Known& known);
  void cancel_away(Job& job, const UsageCounts* spent = nullptr);
  // What jobs answer that run on other hosts (dispatcher_answers_shared.cc):
  friend class HeardAnswer;
  void say(const Job& job, Part::Kind kind, std::string_view bytes);
  void say_restart(Job& job);
  void say_head(const Job& job, const wire::Head& head);
  void say_end(Job& job, std::string_view done);
  void tell_from_start(Job& job, SharedQueue& queue, const SharedOrder::Taken& taken);
  void hear(Job& job, PartPlace after);
  void heard(const JobId& id, const Part& part);
  void heard_frame(Job& job, std::string_view bytes);
  void heard_end(Job& job, std::string_view done);
  void pace_heard(Job& job);
  void begin_again(Job& job);
  static bool is_back(const Job& job, int64_t position);
  void heard_restart(Job& job, std::string_view restarts);
  void heard_hole(const JobId& id);
  void heard_over(const JobId& id);
  void ask_for_rest(Job& job);
  void heard_rest(const JobId& id, PartPlace taking, uint64_t offset, std::string_view answer);
  void tell_end(Job& job, const JobRecord& record, uint64_t fence);
  void give_back_idle();
  bool has_worker(const Scheduler::Lane& lane);
  bool is_too_large(const Job& job) const;
  void store_shared(Job& job, JobRecord record);
  void result_stored(const JobId& id, JobRecord record, const Result<StoredResult>& stored);
  void end_away_whole(const JobId& id, const SharedOrder::Known& known);
  // And of their waits (dispatcher_shared_waits.cc):
  static void foretell_away(Job& job, const Scheduler::Lane& lane);
  void remember_foretold(const Job& job);
  void learn_forgotten(SharedQueue& queue, const JobId& id);
  void learn_away(Scheduler::Lane& lane, const Scheduler::Foretold& foretold,
                  const JobRecord& record);
  void note_came_true(Scheduler::Lane& lane, const JobId& id, const Scheduler::Foretold& foretold,
                      int64_t waited_ns);
  void count(const Job& job, Metrics::Event event) { count(*job.home()->queue, event); }
  void note_started(const Job& job);
  void let_speak(Waiter& waiter);
  void seen(const JobId& id, const wire::Checked* refusal);

  ConnectionLoop& connections_;
  TimeOfDay time_;
  Store* store_ = nullptr;
  SharedJobs* shared_ = nullptr;
  Scheduler scheduler_;
  ServedModels served_;
  Paces paces_;
  OwnedJobs live_;  // those that were promised
  OwnerEvents owner_events_;
  Subscribers subscribers_;
  PromiseReplies replies_;
  UsageLedger usage_;
  Checks checks_;
  EdgeLines edges_;
  SharedCharges charges_{edges_};
  LimitsConfig limits_;
  struct QueueNotes {
    QueueConfig config;
    wire::QueueMetrics* metrics;
    int64_t returns_until_ns = 0;
    uint32_t slots = 0;  // see slots()
  };
  std::unordered_map<const Scheduler::Queue*, QueueNotes> notes_;
  JobIdMaker ids_;
  JobTable jobs_;
  std::unordered_map<uint64_t, Job*> keys_;  // by Hash128::lo: of jobs that others may join
  Suspects suspects_;
  ReadyWorkers workers_;
  std::vector<Scheduler::Expired> expired_;  // scratch of advance_to()
  Subscribers::Due due_;                     // likewise
  uint64_t last_number_ = 0;
  int64_t frame_bytes_ = 0;  // of frames
  size_t unpromised_ = 0;    // jobs
  size_t ending_ = 0;        // of the promised: their end is being written
  bool draining_ = false;
  bool logs_ends_ = false;  // a line for each job's
  TracesConfig traces_;
  bool refill_ = false;          // a slot came free without a word of its worker
  int64_t look_ns_ = INT64_MIN;  // for who waits where nobody is worth waiting for
  Metrics metrics_;
  PredictionLog predictions_;
  struct AwayWait {
    Scheduler::Lane* lane;
    Scheduler::Foretold foretold;
    int64_t told_ns;
  };
  std::unordered_map<const Scheduler::Lane*, uint64_t> asked_turn_;  // of ask_for_shared()
  uint64_t asked_turns_ = 0;
  std::unordered_map<std::string, AwayWait> foretold_;  // of jobs that are forgotten, by id
  // Taken here before its promise was made.
  struct Early {
    SharedQueue* queue;
    SharedOrder::Taken taken;
    bool is_ours() const { return queue->fence_of(taken.id) == taken.fence; }
  };
  std::unordered_map<std::string, Early> early_;  // by id
  int64_t since_ms_;                              // this was made; time of day
  uint64_t refused_ = 0;
};

}  // namespace penstock::queue
