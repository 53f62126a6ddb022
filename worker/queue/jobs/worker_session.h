// WorkerSession: penstockd's end of the socket pair to one worker process.
//
//    HELLO ──▶ said hello ──TAKE──▶ ready ──▶ (closed)
//
// The worker asks for jobs by credit. Answers are passed on to the callers frame by frame, as they
// are, with the id replaced. Numbers on this connection only grow. So a frame for a number that was
// given and is not known any more belongs to a job that was just cancelled, and is dropped.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/log.h"
#include "shared/wire/messages.h"
#include "shared/wire/metrics_page.h"
#include "worker/queue/bound/budget.h"
#include "worker/queue/bound/pace.h"
#include "worker/queue/handover/record.h"
#include "worker/queue/jobs/job.h"
#include "worker/queue/link/connection.h"

namespace penstock::queue {

class WorkerSession;

// What comes of a worker's frames. Outlives the sessions. `frame` is the whole frame as it came;
// where a job is named, the worker has it.
class WorkerEvents {
 public:
  virtual ~WorkerEvents() = default;
  virtual void on_head(Job& job, const wire::Head& head) = 0;
  virtual void on_chunk(Job& job, std::string_view bytes, std::string_view frame) = 0;
  virtual void on_progress(Job& job, const wire::Progress& progress, std::string_view frame) = 0;
  virtual void on_preview(Job& job, const wire::Preview& preview) = 0;
  virtual void on_done(Job& job, const wire::Done& done, std::string_view frame) = 0;
  virtual void on_failed(Job& job, const wire::Failed& failed) = 0;  // may be tried again
  // False: no request was shown to it under this number.
  virtual bool on_checked(uint64_t number, const wire::Checked& checked) = 0;
  // How many of its slots can be used has changed.
  virtual void on_slots(WorkerSession& worker) = 0;
  // Slots or memory of this device are free.
  virtual void fill(const Claims& device) = 0;
  // What some worker can hold has changed.
  virtual void recount() = 0;
  // The numbers of a lane's model, for as long as it is served.
  virtual wire::ServingMetrics& serving(const Scheduler::Lane& lane) = 0;
};

// WorkerHost started the worker, and outlives the session.
class WorkerHost {
 public:
  virtual ~WorkerHost() = default;
  virtual void on_worker_ready(WorkerSession& session) = 0;
  // The connection is gone; the session is destroyed in here.
  virtual void on_worker_closed(WorkerSession& session) = 0;
};

class WorkerSession final : public Connection, private Seat::Claimant {
 public:
  static constexpr uint32_t kMaxCredit = 1U << 17;
  static constexpr size_t kMaxLastWords = 300;
  static constexpr size_t kMaxChat = 500;
  static constexpr size_t kMaxHeaders = 8U << 10;  // of an answer
  static constexpr int64_t kMaxRetryMs = 86'400'000;
  static constexpr size_t kMaxReason = 2000;  // bytes of it that are told, why a job failed
  static constexpr size_t kMaxNameBytes = 200;
  static constexpr uint64_t kMaxClaim = uint64_t{1} << 45;  // bytes; of kMaxCredit jobs, a number

  // `name` is the process's (scaling.h); its jobs come from `lane`, use the device as `seat`, and
  // start no faster than `pace` lets them, if there is one. All outlive this.
  WorkerSession(ConnectionLoop& connections, Fd fd, WorkerEvents& events, WorkerHost& host,
                std::string name, Scheduler::Lane& lane, Seat& seat, Pace* pace = nullptr)
      : Connection(connections, std::move(fd)),
        events_(events),
        host_(host),
        name_(std::move(name)),
        lane_(lane),
        seat_(seat),
        pace_(pace) {}

  const std::string& name() const { return name_; }
  Scheduler::Lane& lane() const { return lane_; }

  Seat& seat() const { return seat_; }
  Pace* pace() const { return pace_; }

  // How many jobs it can be given now, within the bound of the device. None once it drains.
  uint32_t credit() const {
    const auto held = static_cast<uint32_t>(given_.size());
    return draining_ || closed() || held >= open_slots_
               ? 0
               : std::min({credit_, open_slots_ - held, seat_.free_slots()});
  }
  // The most jobs that it has held or asked for at once, and can hold now. A moment without room
  // does not count: there is room again soon.
  uint32_t capacity() const {
    return draining_ || closed() || is_out_ ? 0
           : open_slots_ == 0               ? capacity_
                                            : std::min(capacity_, open_slots_);
  }
  // How many of its slots can be used now. If not all: why, and until when at least.
  uint32_t open_slots() const { return std::min(open_slots_, slots_); }
  const std::string& why_closed() const { return why_closed_; }
  int64_t reopens_ns() const { return reopens_ns_; }
  // What would run its jobs is not there.
  bool is_out() const { return is_out_; }
  uint32_t slots() const { return slots_; }
  bool said_hello() const { return slots_ > 0; }
  bool ready() const { return ready_; }
  bool draining() const { return draining_; }
  // Whether such a request is to be shown to it before it is promised, and can be.
  bool checks(bool completion) const {
    const bool may_refuse =
        checks_ == wire::Checking::kAll || (checks_ == wire::Checking::kCompletions && completion);
    return may_refuse && ready_ && !draining_ && !closed() && !clogged();
  }
  int64_t last_heard_ns() const { return last_heard_ns_; }  // 0: nothing yet
  uint64_t memory_bytes() const { return heartbeat_.memory_bytes; }
  const wire::Heartbeat& heartbeat() const { return heartbeat_; }  // the last
  // How it takes chats, in its own words (wire::Hello); or empty.
  const std::string& chat() const { return chat_; }
  // Why the connection ended, as far as either side said; or empty.
  const std::string& last_words() const { return last_words_; }
  // It said that the device is to blame.
  bool device_fault() const { return device_fault_; }
  size_t running() const { return given_.size(); }
  size_t running_promised() const {
    return static_cast<size_t>(std::count_if(given_.begin(), given_.end(), [](const Given& each) {
      return each.job->promise != Job::PromiseState::kNone;
    }));
  }
  // REQUIRES: running() > 0.
  Job& any_job() const { return *given_.back().job; }
  // The group of the suspects that it runs; 0: it runs none. A worker that runs suspects runs
  // nothing else.
  uint32_t group() const { return given_.empty() ? 0 : given_.back().job->more->suspect; }
  // Nothing is in the process, what was cancelled included.
  bool empty() const { return given_.empty() && seat_.busy() == 0; }
  // It is in the process. REQUIRES: it is this worker's.
  bool was_sent(const Job& job) const;

  // The job is this worker's now, under a new number. REQUIRES: credit() > 0.
  void assign(Job& job, uint64_t number, int64_t priority, int64_t expected_ns);
  // Sends its SUBMIT frame. REQUIRES: it was assigned, and not sent yet.
  // `trace`: the traceparent of this run; empty: it has none of ours.
  void send(const Job& job, const SharedBytes& frame, std::string_view trace = {});
  // Shows it a SUBMIT frame, as the check of that number (checks.h).
  void show(const SharedBytes& frame, uint64_t number);
  // The job is no longer wanted. True: it was not sent, and its slot is free at once. Else the slot
  // comes back with the worker's next TAKE.
  bool revoke(Job& job);
  void forget(const Job& job);
  // `bytes` more of the job's answer may come. REQUIRES: the job runs on this worker.
  void widen(const Job& job, uint64_t bytes) {
    wire::append(out(), job.more->number, wire::Window{bytes});
  }
  // No more jobs; it finishes what it has and exits.
  void drain();
  // The same where the process is gone, and only its last frames are still to be read.
  void note_gone() { draining_ = true; }
  // Says that it is not to come back until an operator says so. REQUIRES: others started it, and
  // drain() follows.
  void tell_drained(std::string_view why) {
    wire::append(out(), 0, wire::Goodbye{.message = why, .drained = 1});
  }
  // It writes its log so from now on. REQUIRES: penstockd started it.
  void tell_log(const LogSettings& log);

  // As the next penstockd takes it over (worker_session_hand_over.cc). The texts hold while
  // `carried` and this do.
  struct CarriedTexts {
    Connection::Carried connection;
    std::string heartbeat;
  };
  void hand_over(CarriedWorker& worker, CarriedTexts& texts) const;
  void hand_over_given(RecordWriter& record) const;
  void take_over(const CarriedWorker& worker);
  // nullptr: there is no such job any more, and the worker is told so.
  void take_over(const CarriedGiven& given, Job* job);
  void claim_again(uint64_t number, int64_t bytes) { seat_.claim(number, bytes, *this); }
  // Nothing was read of it until now.
  void excuse_silence(int64_t now_ns) {
    last_heard_ns_ = last_heard_ns_ == 0 ? 0 : std::max(last_heard_ns_, now_ns);
  }

 private:
  struct Given {
    uint64_t number;
    Job* job;
    bool sent;
    int64_t given_ns = 0;
    int64_t priority = 0;
    int64_t charged_ns = 0;  // for its turn
    int64_t head_ns = 0;     // when its answer began to stream; 0: it does not
    Pace::Start paced;
    uint64_t tokens = 0;  // that it used, or is thought to use
  };
  void on_frame(const wire::Frame& frame, std::string_view bytes) override;
  void on_closed() override { host_.on_worker_closed(*this); }
  void on_refused(std::string_view reason) override {
    last_words_ = "it broke the protocol: " + std::string(reason);
  }
  void on_granted(uint64_t job, int64_t bytes) override;
  void on_goodbye(const wire::Frame& frame);
  const char* on_hello(const wire::Frame& frame);
  const char* on_take(const wire::Frame& frame);
  const char* on_claim(const wire::Frame& frame);
  const char* on_slots(const wire::Frame& frame);
  const char* on_heartbeat(const wire::Frame& frame);
  const char* on_checked(const wire::Frame& frame);
  const char* on_answer(const wire::Frame& frame, std::string_view bytes);
  const char* on_end(Given& given, const wire::Frame& frame, std::string_view bytes);
  const char* on_head(Given& given, const wire::Frame& frame);
  void note_done(Given& given, const wire::Done& done);
  Given* find(uint64_t number);
  void append_payload(const SharedBytes& frame);

  WorkerEvents& events_;
  WorkerHost& host_;
  std::string name_;
  Scheduler::Lane& lane_;
  Seat& seat_;
  Pace* pace_;
  bool device_fault_ = false;
  bool ready_ = false;
  bool draining_ = false;
  wire::Checking checks_ = wire::Checking::kNone;
  uint32_t slots_ = 0;
  uint32_t credit_ = 0;
  uint32_t capacity_ = 0;
  uint32_t open_slots_ = UINT32_MAX;  // until it says SLOTS, all
  bool is_out_ = false;
  int64_t reopens_ns_ = 0;
  std::string why_closed_;
  uint64_t last_number_ = 0;
  int64_t last_heard_ns_ = 0;
  wire::ServingMetrics* serving_ = nullptr;  // of its model; set by HELLO
  wire::Heartbeat heartbeat_;
  std::string chat_;
  std::string last_words_;
  std::vector<Given> given_;
};

}  // namespace penstock::queue
