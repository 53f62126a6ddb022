// Intake: from a caller's SUBMIT to a job in its queue, or a refusal that says why.
//
// It answers what penstockd answers itself (models), finds the lane, and reads what the headers ask
// for. It joins a request to the job that is there, if both ask for the same. It refuses what would
// not be served: by bounds, by predicted wait, or while draining. A request that is to be promised
// is shown to a worker first (checks.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "shared/limit/returns.h"
#include "shared/limit/siphash.h"
#include "shared/wire/messages.h"
#include "worker/queue/api/models_answer.h"
#include "worker/queue/api/recent_keys.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/jobs/job_options.h"

namespace penstock::queue {

class Intake {
 public:
  Intake(Dispatcher& dispatcher, int64_t start_unix_s);
  Intake(const Intake&) = delete;
  Intake& operator=(const Intake&) = delete;

  // Owners and keys are hashed under this secret. The store keeps it over restarts.
  void set_secret(const limit::Secret& secret) { secret_ = secret; }
  const limit::Secret& secret() const { return secret_; }
  // Says what is wrong with the target of a webhook. Without it, webhooks are refused.
  std::function<Status(std::string_view url)> check_callback;

  // `bytes` is the whole SUBMIT frame that `submit` points into.
  void submit(Caller& caller, uint64_t id, const wire::Submit& submit, std::string_view bytes);
  void refuse_crowded(Caller& caller, uint64_t id);
  // 413: the body, or the frame about it, has `bytes` bytes.
  void refuse_oversized(Caller& caller, uint64_t id, uint64_t bytes);

  // Whether a frame of `bytes` bytes fits into memory beside those that are there or on their way.
  bool has_room_for(uint64_t bytes) const;
  void refuse_for_memory(Caller& caller, uint64_t id);

  // The keyed hash of an owner, or of a share. {}: nobody. A job that is nobody's is in no list;
  // whoever knows its id sees it.
  limit::Hash128 hash_of(std::string_view who) const { return hash_of(who, secret_); }
  // The same in a queue: those that hosts share have a secret that is theirs.
  limit::Hash128 hash_of(std::string_view who, const SharedQueue* queue) const {
    return hash_of(who, secret_in(queue));
  }

 private:
  // A request that was read.
  struct Order {
    Scheduler::Lane* lane = nullptr;
    SharedQueue* shared = nullptr;  // its queue, if hosts share it
    Scheduler::Entry entry;
    limit::Hash128 owner;
    limit::Hash128 share;
    bool async = false;
    bool reject = false;        // rather than join another
    bool durable = false;       // its key was the client's own, and is kept
    bool may_be_local = false;  // hosts share its queue, but this one may have served the key alone
    limit::Hash128 local_key, local_digest;  // then: as it would have them
    std::string head;  // of a queue that hosts share: what Redis keeps of it once it is over, and
                       // of one that is to be promised its receipt
    bool completion = false;  // as its path says
    bool earlier_if_busy = false;
    int64_t earliest_ms = 0;  // no answer of before that may do
    int64_t max_wait_ns = 0;
    int64_t start_within_ns = 0;   // of the caller's own; 0: whenever
    int64_t finish_within_ns = 0;  // likewise
    JobRecord record;              // of one that is promised, or kept for its key
  };

  // The job's lane. nullptr: penstockd has answered the request itself, or refused it.
  Scheduler::Lane* route(Caller& caller, uint64_t id, const wire::Submit& submit);
  bool read(Caller& caller, uint64_t id, const wire::Submit& submit, bool shared,
            JobOptions& options);
  std::vector<std::string_view> models_of(const Scheduler::Queue& queue) const;
  Model describe(const Scheduler::Lane& lane) const;
  void hash_key(const wire::Submit& submit, const JobOptions& options, Order& order) const;
  static void describe(const wire::Submit& submit, const JobOptions& options, JobRecord& record);
  bool join(Caller& caller, uint64_t id, const wire::Submit& submit, const JobOptions& options,
            const Order& order);
  // Where this host serves its own callers while Redis is away. False: it was refused.
  bool mind_local(Caller& caller, uint64_t id, const wire::Submit& submit,
                  const JobOptions& options, Order& order);
  void look_up(Job& job, Order order);
  void found(const JobId& id, Order order, std::optional<JobRecord> earlier);
  void check(Job& job, Order order);
  void checked(const JobId& id, Order order, const wire::Checked* refusal);
  // `answer`: nullptr: the store has it.
  void replay(Job& job, const JobRecord& earlier, const Scheduler::Lane& lane,
              const std::string_view* answer = nullptr);
  // Of queues that hosts share (intake_shared.cc):
  void share(const JobId& id, const Order& order, const std::string& instead_of = {});
  Newcomer newcomer_of(const Order& order, const JobRecord& record, std::string body,
                       int64_t ends_by_ns) const;
  void shared(const JobId& id, const Order& order, SharedQueue::Outcome outcome,
              const SharedOrder::Added& added);
  int64_t last_position(const Order& order) const;
  bool is_short_of_memory(const Order& order) const;
  static void unwanted(const JobId& id, const Order& order);
  void nobody_heard(const JobId& id, const Order& order, bool may_be_there);
  void key_used(const JobId& id, const Order& order, const SharedOrder::Added& added);
  void known(Job& job, const Order& order, const std::string& other, SharedQueue& queue,
             const SharedOrder::Known& known);
  void join_away(Job& job, const Order& order, SharedQueue& queue, const JobRecord& record,
                 const SharedOrder::Known& known);
  void refuse_shared(Job& job, const Order& order, std::string_view why);
  static limit::Hash128 hash_of(std::string_view who, const limit::Secret& secret);
  const limit::Secret& secret_in(const SharedQueue* queue) const {
    return queue != nullptr && queue->secret() ? *queue->secret() : secret_;
  }
  void hash_earlier(const wire::Submit& submit, Order& order) const;
  // Nobody is promised its answer.
  bool is_kept_for_others(const Order& order) const;
  bool turn_away(Caller& caller, uint64_t id, const wire::Submit& submit, const JobOptions& options,
                 const Order& order, size_t bytes);
  void turn_away(Job& job, const Order& order, const wire::Failed& failed);
  void seek_earlier(Waiter& waiter, const Order& order, const wire::Failed& failed);
  void look_up_earlier(const Order& order, std::function<void(std::optional<KeptAnswer>)> then);
  void start(Job& job, Order&& order);
  // Nothing: there is room. Else why not.
  struct Refusal {
    std::string message;
    int64_t retry_after_s;
    // 503. Valid while this is.
    wire::Failed failed() const {
      return {.status = 503,
              .code = "busy",
              .message = message,
              .retry_after_s = static_cast<uint64_t>(retry_after_s)};
    }
  };
  static constexpr int64_t kAwayRetrySeconds = 2;   // of a Redis that does not answer
  static constexpr int64_t kFullRetrySeconds = 10;  // of one whose memory is nearly full
  Refusal unattended(const Scheduler::Lane& lane, int64_t retry_after_s) const;
  std::optional<Refusal> busy(const Order& order, size_t bytes);
  std::optional<Refusal> late(const Order& order, int64_t wait_ns);
  void set_deadlines(Job& job, Order& order);
  int64_t spread(const Order& order, int64_t wait_ns);
  void refuse(Caller& caller, uint64_t id, const wire::Failed& failed);
  void want_news(Waiter& waiter, const wire::Submit& submit);
  void refuse_all(Job& job, const wire::Failed& failed);
  static wire::Failed in_flight() {
    return {.status = 409, .code = "duplicate", .message = "The same request is in flight."};
  }
  // What was asked, whoever asked it, and without what says when and how it is to be answered.
  static void append_asked(std::string& text, const wire::Submit& submit);

  Dispatcher& dispatcher_;
  int64_t start_unix_s_;
  limit::Secret secret_;
  limit::Returns returns_;
  RecentKeys brought_;
};

}  // namespace penstock::queue
