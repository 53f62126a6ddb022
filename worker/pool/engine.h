// The engine interface: what a worker needs to know of anything that can run jobs on a device.
//
// A worker process holds exactly one Engine and drives it from one thread (but for admit(), where
// admits_beside_steps()):
//
//     admit(request) ──▶ Plan or Failure    may this job ever run here, and what will it hold?
//     start(job, plan)                      the job joins the batch
//     step(now) ... step(now)               each step advances every running job a little
//     cancel(job)                           the job leaves the batch, nothing more is said of it
//     pause(job) ... resume(job)            its answer is not read: steps pass it over
//
// An engine whose jobs run elsewhere (another server, a program) has a descriptor that wakes it
// (wake_fd), and is stepped also while no job runs.
//
// Jobs join and leave between steps (continuous batching, Yu et al., "Orca", OSDI 2022), so a
// cancel waits for one step at most. What a job produces goes out through the Sink, in this order:
//
//     head? chunk* (done | failed)        progress and previews may come anywhere before the end
//
// After done or failed the engine has forgotten the job. The engine never blocks on anything but
// the device.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>

namespace penstock {

// A job's number between penstockd and one worker; never 0.
using JobNumber = uint64_t;

// What the caller sent. The views are valid during the call they are
// passed to; an engine copies what it keeps, or holds `storage`.
struct Request {
  std::string_view method;        // "POST"
  std::string_view path;          // "/v1/completions", without the query
  std::string_view query;         // as sent, may be empty
  std::string_view content_type;  // as sent, may be empty
  std::string_view headers;       // others that its server is to get, "Name: value\n" each
  std::string_view trace;         // traceparent, for the one that these may have; may be empty
  std::string_view model;         // the model the job was routed by; empty if it names none.
                                  // Engines obey this, not the body's own "model" field.
  std::string_view body;
  std::shared_ptr<const void> storage;  // of a large request: the views are valid while it is held
  int32_t priority = 0;                 // class; higher goes first
  std::string_view override;  // a JSON object of the operator's: its fields take the place of those
                              // in the body. Engines that read no fields pass over it.
  int64_t deadline_ns = 0;    // then it is cancelled, on the monotonic clock; 0: not known
};

// Why a job cannot be served, in the words its caller will read (CONTRACT, section 4).
struct Failure {
  int status = 500;        // HTTP status: 400, 404, 413, 502, 504 ...
  std::string code;        // error.code: "invalid_request", "not_found", "engine_failed" ...
  std::string message;     // what is wrong, where, and what would be right
  std::string param;       // the offending request field, or empty
  bool retryable = false;  // another attempt, here or on another worker, may succeed
  // What would run it has no room now: the job goes back to its place, and that is no attempt.
  // REQUIRES: Sink::open() has closed the slots that it must not come back to at once.
  bool returned = false;
  uint64_t retry_after_s =
      0;  // of a refusal that its caller is told: when to come again; 0: unsaid
};

// A request that was read and found good, ready to start. Engines derive their own from it.
class Plan {
 public:
  virtual ~Plan() = default;
  // What the job will hold on the device while it runs, at most, beyond what the engine holds
  // itself.
  int64_t memory_bytes = 0;
};

// What the job used; counted against token and GPU-second limits. The tokens are those the answer
// itself tells of.
struct Usage {
  uint64_t prompt_tokens = 0;      // as the model read it, its own control tokens included
  uint64_t completion_tokens = 0;  // drawn, the one that ended the answer included
  // This job's share of the time the device worked. In a batch the jobs share each step's wall
  // time, so their sum is at most the time that passed; of a device that runs jobs side by side it
  // is the time of the job's slot.
  uint64_t device_ns = 0;
  bool estimated = false;  // nobody told the tokens: they are a guess, and nothing is learned by it
};

// How many of the worker's slots can be used now. An engine that says nothing has all of them.
struct Opening {
  // For its jobs together, those that run included; those that were cancelled and have not left are
  // none of them.
  uint32_t slots = 0;
  bool out = false;      // 0 slots, and not for want of room: what would run the jobs is not there
  int64_t retry_ms = 0;  // so long it will be so, at least; 0: not known
  std::string_view why;  // for the operator; empty where all are open
};

// Where an engine's answers go. Implemented by the pool; calls never block.
class Sink {
 public:
  virtual ~Sink() = default;
  // The answer's HTTP status and type. content_length < 0: not known, the answer streams.
  // `headers`: others that its caller gets, "Name: value\n" each.
  virtual void head(JobNumber job, int status, std::string_view content_type,
                    int64_t content_length, std::string_view headers = {}) = 0;
  // Some of the answer. Of a stream of events one event, whole: a caller that leaves pays a token
  // for each.
  virtual void chunk(JobNumber job, std::string_view bytes) = 0;
  // How far the job is: 0 to 1, and which of so many steps (tokens, frames, passes; 0: not
  // counted).
  virtual void progress(JobNumber job, double fraction, uint32_t step, uint32_t steps) = 0;
  // What it looks like so far: a picture, at most kMaxPreviewBytes. The last one counts.
  static constexpr size_t kMaxPreviewBytes = 768U << 10;
  virtual void preview(JobNumber /*job*/, std::string_view /*content_type*/,
                       std::string_view /*bytes*/) {}
  virtual void done(JobNumber job, const Usage& usage) = 0;
  virtual void failed(JobNumber job, const Failure& failure) = 0;
  // The slot and memory of a job whose cancel() returned false are free now.
  virtual void left(JobNumber /*job*/) {}
  // Holds until it is said again. Not before the first step().
  virtual void open(const Opening& /*opening*/) {}
};

// What an engine has done since it was opened, and how full its cache is; 0 where it does not
// count.
struct Figures {
  uint64_t steps = 0;
  uint64_t step_jobs = 0;          // jobs in each step, summed over the steps
  uint64_t prompt_tokens = 0;      // read
  uint64_t generation_tokens = 0;  // drawn
  uint64_t kv_blocks = 0;          // of the key-value cache
  uint64_t kv_blocks_used = 0;
  // What the server says of itself on which the engine's jobs run.
  uint64_t server_running = 0;
  uint64_t server_waiting = 0;  // in the server's own queue
  uint64_t context_tokens = 0;  // that its model reads and writes at most
};

// Thrown by step() when the device has failed: the process is of no use any more. what() is the
// device's own name for it. Nothing is said of the jobs: one of them may have done it, and
// penstockd sees to them as after any crash.
class DeviceLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Engine {
 public:
  static constexpr int64_t kIdle = INT64_MAX;

  virtual ~Engine() = default;

  // Reads and judges a request without starting it. Touches no device. A plan may be kept (until
  // there is room) or dropped (the caller left); it outlives the request's views.
  virtual std::variant<std::unique_ptr<Plan>, Failure> admit(const Request& request) = 0;

  // Whether admit() takes its time with a long request, and may run on another thread than all
  // else, which goes on meanwhile (admit_thread.h). It is never called twice at once.
  virtual bool admits_beside_steps() const { return false; }

  // Whether admit() refuses nothing but completions (POST .../completions).
  virtual bool judges_completions_only() const { return false; }

  // REQUIRES: plan came from this engine's admit(); `job` is not running; fewer than `slots` run.
  virtual void start(JobNumber job, std::unique_ptr<Plan> plan) = 0;

  // Advances every running job. Returns when it wants to be stepped next, on the monotonic clock
  // (ns): `now_ns` or earlier means at once, kIdle means not before another start(), or wake_fd().
  virtual int64_t step(int64_t now_ns) = 0;

  // Polls readable when there is something to do: then step() is called, also while no job runs.
  // -1: none, and step() is called only while jobs run. Does not change.
  virtual int wake_fd() const { return -1; }

  // The job leaves. True: its slot and memory are free on return; else Sink::left() says when.
  // Unknown jobs are ignored.
  virtual bool cancel(JobNumber job) = 0;

  // Its answer is not read as fast as it is made: steps pass it over, and nobody else, until
  // resume(). It keeps its memory. What an engine says of it all the same is kept by the pool.
  // Unknown jobs are ignored.
  virtual void pause(JobNumber /*job*/) {}
  virtual void resume(JobNumber /*job*/) {}

  virtual Figures figures() const { return {}; }

  // For the operator: by which template chats are asked, or why they are refused. "chat is asked in
  // the model's own template, of ...". Then what is slower than it need be. Empty: there is nothing
  // to say. Does not change.
  virtual std::string chat() const { return {}; }
};

}  // namespace penstock
