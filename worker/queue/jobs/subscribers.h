// Subscribers: everybody who waits for something on a caller's connection, and what they are told.
//
// It keeps the Waiters, and the time by which each must hear something. It tells the Dispatcher
// that a waiter has left; what becomes of a job that nobody wants is the Dispatcher's business.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <string_view>

#include "shared/wire/messages.h"
#include "worker/queue/config/config.h"
#include "worker/queue/jobs/event_stream.h"
#include "worker/queue/jobs/job.h"
#include "worker/queue/jobs/job_view.h"
#include "worker/queue/link/connection.h"
#include "worker/queue/order/scheduler.h"

namespace penstock::queue {

class Subscribers {
 public:
  // Each hears of its request at least that often (PROTOCOL: 15 s).
  static constexpr int64_t kSignOfLifeNs = 10 * kNsPerSec;
  static constexpr int64_t kKeepAliveNs = 15 * kNsPerSec;  // of event streams
  static constexpr int64_t kPositionNs = kNsPerSec;        // changed places are told that often
  static constexpr int64_t kProgressNs = 250 * kNsPerMs;   // and progress that often
  // Of an answer that is over, at once, as much as is kept of one that is not.
  static constexpr uint64_t kMostRest = 2 * Answer::kWindowBytes;

  // `wall_ms` tells the time of day, in ms since 1970.
  Subscribers(ConnectionLoop& connections, const Scheduler& scheduler, int64_t (*wall_ms)())
      : connections_(connections), scheduler_(scheduler), wall_ms_(wall_ms) {}
  Subscribers(const Subscribers&) = delete;
  Subscribers& operator=(const Subscribers&) = delete;

  // A caller has asked under this id. The waiter stays until leave(). One that waits for an answer
  // may want news: see want_news().
  Waiter& add(Caller& caller, uint64_t id, Waiter::Kind kind);
  void join(Waiter& waiter, Job& job);
  // Its stream speaks from then on, unless its answer has begun.
  void want_news(Waiter& waiter, std::unique_ptr<QueueNews> news);
  // The waiter is told at its `wait_ends_ns`, at the latest.
  void set_wait(Waiter& waiter);
  // The waiter waits for its job no longer.
  static void detach(Waiter& waiter);
  // Its request is over; nothing more is said to it.
  void leave(Waiter& waiter);
  // The store has spoken, or will: a waiter that left meanwhile goes for good. False when it has.
  static void ask(Waiter& waiter) { ++waiter.asking; }
  bool answered(Waiter& waiter);

  // Whether anybody waits for the job itself, and not only for news of it.
  static bool wanted(const Job& job);

  void set_limits(const LimitsConfig& limits) {
    max_unsent_ = limits.max_unsent_bytes;
    read_timeout_ns_ = limits.read_timeout_ns;
  }
  // Whether all who wait for the answer have so much to read that the worker need make no more now.
  // Their sessions say when that changes (Dispatcher::widen()).
  bool lags(const Job& job) const;

  // Sends a frame of the worker's to those who wait for the answer. Those who fall behind others
  // are told so and leave. `answer`: the bytes of it that the frame has.
  // `whole`: all of the answer comes at once, so that nobody can have read too slowly.
  void forward(Job& job, std::string_view frame, std::string_view answer = {}, bool whole = false);
  void forward_head(Job& job, const wire::Head& head);
  // The answer is complete, or there is none: those who wait for it leave.
  void complete(Job& job, std::string_view done_frame);
  void fail(Job& job, const wire::Failed& failed);
  // The answer so far, to one who came late. REQUIRES: all of it is in memory.
  void replay(Waiter& waiter, const Job& job);

  // The stream in which the answer will come begins, and tells of the wait. REQUIRES: it wants
  // news, and no answer has begun.
  void open(Waiter& waiter);
  // Those who may do so next are looked at again.
  void speak_soon(Job& job);

  // What event streams are told:
  EventStream stream(Waiter& waiter) const;
  void begin_stream(Waiter& waiter);
  void begin_events(Waiter& waiter, const Job& job, const EventId& last);
  // The whole stream of a job that has ended. `answer`: of a run of it, whose events are told from
  // `last` on; nullptr: none are.
  void only_event(Waiter& waiter, const JobView& end, const Answer* answer = nullptr,
                  const EventId& last = {});
  void tell_state(Job& job);
  void tell_progress(Job& job);
  void tell_preview(Job& job);
  void tell_answer(Job& job);
  // All of its answer is in memory. `same`: what was told before is its beginning.
  void tell_rest(Job& job, bool same);
  // The job is over as `view` says: the last event, and those who listened leave.
  void end_events(Job& job, const JobView& view);

  static JobStatus status_of(const Job& job);
  // Among those that compete for the same workers; of one that is away, as Redis said last.
  uint32_t position_of(const Job& job) const {
    return job.away ? job.more->position : scheduler_.position(job);
  }
  // Whether somebody is to have its answer from the store.
  static bool has_late(const Job& job);
  // How long until it starts; 0: it has, or nobody knows.
  int64_t wait_ns(const Job& job) const;
  // The same in the view of a job whose order is elsewhere, at view.position.
  static void say_wait(JobView& view, const Scheduler::Lane& lane, int64_t now_ns);
  // The job as it is now. The views in it hold while the job lives.
  JobView view(const Job& job, std::string_view jobs_path) const;
  EventId event_id(const Job& job, uint64_t offset) const;
  // Why nobody knows when a job of this lane would start, as JobView has it; empty: somebody may,
  // if it is known how long its jobs take.
  static std::string_view unknown_because(const Scheduler::Lane& lane, int64_t now_ns);
  static bool has_learned(const Scheduler::Lane& lane);
  // When to ask for a job again.
  int64_t poll_after_s(const JobView& view) const;
  static constexpr std::string_view kLearning = "learning";  // it is not

  template <typename Visit>
  void each(Visit&& visit) const {
    std::for_each(waiters_.begin(), waiters_.end(), visit);
  }
  bool empty() const { return waiters_.empty(); }

  // It is looked at again then.
  void set_due(Waiter& waiter, int64_t due_ns) { timers_.set(waiter, due_ns); }

  // Who is to be heard of now: see advance_to().
  struct Due {
    std::vector<Waiter*> over;    // promises whose `wait=` is over
    std::vector<Waiter*> stuck;   // waiting for an answer, of which nothing was read for too long
    std::vector<Waiter*> owners;  // streams of all of an owner's jobs
    std::vector<Waiter*> quiet;   // waiting for an answer whose stream may speak: see open()
  };
  // Says signs of life and changed places; appends to `due` those that others see to.
  void advance_to(int64_t now_ns, Due& due);
  int64_t next_event() const { return timers_.next_ns(); }

 private:
  friend class JobsHandOver;
  void say_state(Waiter& waiter, const JobView& view);
  void say_end(Waiter& waiter, const JobView& end);
  void say_answer(Waiter& waiter);
  void say_text(Waiter& waiter, const Answer& answer, uint64_t run);
  void say_preview(Waiter& waiter, const Job& job) const;
  void say_news(Waiter& waiter, JobView now);
  void look_after_news(Waiter& waiter, int64_t now_ns);
  bool wants_to_speak(const Waiter& waiter) const;
  void drop_if_slow(Waiter& waiter);
  bool is_stuck(const Waiter& waiter, int64_t now_ns) const;
  void look_after(Waiter& waiter, int64_t now_ns);
  void look_after_events(Waiter& waiter, int64_t now_ns);
  // `tell` may make the waiter leave, and no other.
  template <typename Tell>
  static void each(Job& job, Waiter::Kind kind, Tell&& tell) {
    for (Waiter* waiter = job.waiters(); waiter != nullptr;) {
      Waiter* const next = waiter->next;
      if (waiter->kind == kind) {
        tell(*waiter);
      }
      waiter = next;
    }
  }

  ConnectionLoop& connections_;
  const Scheduler& scheduler_;
  int64_t (*wall_ms_)();
  int64_t max_unsent_ = int64_t{4} << 20;
  int64_t read_timeout_ns_ = 60 * kNsPerSec;
  std::list<Waiter> waiters_;
  TimerHeap timers_;
};

}  // namespace penstock::queue
