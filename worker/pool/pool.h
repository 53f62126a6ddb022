// The pool: a worker's slots and memory budget between penstockd and one engine.
//
// penstockd sends a job only against credit, and the pool grants exactly `slots` of it, so that
//
//     credit granted + jobs being read + jobs waiting for memory + running + leaving
//         + credit to return == slots
//
// holds after every turn; running jobs never exceed slots, whatever is sent. Of a job's life here:
//
//     SUBMIT ──admit──▶ waiting ──slot and memory──▶ running ──▶ DONE / FAILED
//        └─▶ FAILED        └───────── CANCEL ───────────┴──leaving──▶ (nothing is answered)
//
// and each way out returns one credit, and what the job was granted. Waiting jobs start in the
// order they came: a small one does not overtake a big one, so the big one's wait is bounded. Where
// the device is shared, penstockd sees to that (CLAIM, GRANT).
//
// CHECK is answered at once, before the engine's step: it takes no slot, and nobody waits for it.
//
// An engine that takes its time to admit a long request does so on a thread of its own
// (admit_thread.h), while others' steps go on; the jobs are waiting in the order they came all the
// same.
//
// One thread but for that, no clock: main calls turn(now) whenever the socket is ready or `wake_ns`
// has come. A turn reads what penstockd sent, lets the engine make one step, and sends everything
// that came of it, with the credit it freed, in one write.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <variant>

#include "shared/base/clock.h"
#include "shared/wire/messages.h"
#include "worker/pool/admit_thread.h"
#include "worker/pool/engine.h"
#include "worker/pool/link.h"
#include "worker/pool/sink.h"

namespace penstock {

class Pool {
 public:
  struct Options {
    std::string name;   // as in penstock.yaml
    std::string model;  // served under this name
    uint32_t slots = 1;
    int64_t memory_bytes = 0;            // of all running jobs' plans together; 0: no bound
    bool claims_memory = false;          // penstockd grants each job's, as others share the device
    size_t max_unsent_bytes = 8U << 20;  // past it the engine rests until penstockd reads
    int64_t heartbeat_ns = kNsPerSec;
  };

  // An operator has drained it: who started it is not to do so again until told to. Of its unit
  // (config/systemd), too.
  static constexpr int kExitDrained = 10;

  // What main is to do next.
  struct Next {
    bool over = false;
    int exit_status = 0;        // or kExitDrained; 1: penstockd broke the protocol
    std::string message;        // for stderr, if not empty
    int64_t wake_ns = 0;        // call turn() again then at the latest (monotonic)
    bool wants_write = false;   // ... or when the socket takes bytes again
    bool took = false;          // a place has come free: the next job may be here in a moment
    bool hears_engine = false;  // ... or when the engine's wake_fd() is readable
  };                            // ... or when admitted_fd() is

  // Says HELLO and grants credit with the first turn. `link` and `sink` outlive this; the sink
  // writes to the link, and is the one `engine` was made with.
  Pool(Options options, Link& link, FrameSink& sink, std::unique_ptr<Engine> engine);

  // What there is to do besides what is due by the time.
  struct Ready {
    bool socket = true;   // penstockd may have sent something, or has gone
    bool engine = false;  // its wake_fd() is readable
  };
  Next turn(int64_t now_ns, Ready ready);
  Next turn(int64_t now_ns) { return turn(now_ns, Ready()); }

  // Does what DRAIN of penstockd does. penstockd does not know, so no more credit is granted. The
  // pool is over once the last job has ended.
  void drain() { draining_ = silent_ = true; }

  const Engine& engine() const { return *engine_; }
  // Polls readable when a request was read beside the steps. -1: none ever is.
  int admitted_fd() const { return beside_ != nullptr ? beside_->fd() : -1; }
  uint32_t running() const { return static_cast<uint32_t>(running_.size()); }
  // For memory, or to be read.
  uint32_t waiting() const {
    return static_cast<uint32_t>(waiting_.size() + (beside_ != nullptr ? beside_->jobs() : 0));
  }
  uint32_t credit_granted() const { return granted_; }
  int64_t memory_in_use() const { return memory_in_use_; }
  // What HEARTBEAT said last.
  const wire::Heartbeat& heartbeat() const { return heartbeat_; }

 private:
  struct Waiting {
    JobNumber job;
    std::unique_ptr<Plan> plan;
    bool granted = false;
  };

  // Each returns the rule penstockd broke, or nullptr.
  const char* read_frames();
  const char* on_frame(const wire::Frame& frame);
  static const char* on_log(std::string_view payload);
  const char* on_submit(const wire::Frame& frame);
  const char* on_check(const wire::Frame& frame);

  using Verdict = AdmitThread::Verdict;
  void admit(AdmitThread::Id id, std::string_view payload, const wire::Submit& submit);
  void admitted(AdmitThread::Id id, Verdict verdict);
  void tell(uint64_t check, const Verdict& verdict);
  void take_up(JobNumber job, Verdict verdict);
  void take_admitted();
  uint64_t reading_ms(int64_t now_ns) const;
  void on_cancel(JobNumber job);
  void on_grant(JobNumber job, uint64_t bytes);
  void on_window(JobNumber job, uint64_t bytes);
  bool is_held(JobNumber job);
  bool fits(const Plan& plan) const;
  std::deque<Waiting>::iterator next_to_start();
  bool start_waiting();
  void step(int64_t now_ns);
  void collect_ended();
  void collect_left();
  void greet();
  void pause_closed();
  void forget(JobNumber job);
  void give_back(int64_t memory_bytes);
  bool clogged() const { return link_.unsent_bytes() > options_.max_unsent_bytes; }
  void report(int64_t now_ns);
  Next outcome(int64_t now_ns) const;
  Next ended() const {
    return {.over = true,
            .exit_status = drained_ ? kExitDrained : 0,
            .message = farewell_.empty() ? "" : "penstockd said: " + farewell_};
  }
  Next gone();
  Next refused(const char* rule);

  const Options options_;
  Link& link_;
  FrameSink& sink_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<AdmitThread> beside_;  // nullptr: requests are read where they come

  std::deque<Waiting> waiting_;
  std::unordered_map<JobNumber, int64_t> running_;  // to the memory its plan asked for
  std::unordered_map<JobNumber, int64_t> leaving_;  // cancelled, and not free yet; likewise
  int64_t memory_in_use_ = 0;
  uint32_t granted_ = 0;     // credit penstockd holds
  uint32_t owed_;            // credit to grant at the end of this turn
  uint64_t owed_bytes_ = 0;  // that were granted to us, and are not held any more

  int64_t step_due_ns_ = 0;
  int64_t heartbeat_due_ns_ = 0;
  wire::Heartbeat heartbeat_;
  bool prodded_ = false;  // it has something to do at once
  bool greeted_ = false;
  bool checked_ = false;  // a CHECK was answered in this turn
  bool draining_ = false;
  bool silent_ = false;   // penstockd would take credit for room
  std::string farewell_;  // penstockd's GOODBYE
  bool drained_ = false;  // it says not to come back
};

}  // namespace penstock
