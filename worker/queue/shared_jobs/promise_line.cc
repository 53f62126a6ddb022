#include "worker/queue/shared_jobs/promise_line.h"

#include <hiredis/hiredis.h>

#include <utility>

namespace penstock::queue {

using Trouble = SharedOrder::Trouble;

PromiseLine::PromiseLine(redis::Servers& servers, const Scheduler::QueueSettings& settings,
                         int64_t keep_ms, uint32_t replicas)
    : servers_(servers), order_(servers, settings, keep_ms), replicas_(replicas) {}

void PromiseLine::add(SharedOrder::Job job, SharedOrder::Then<SharedOrder::Added> then) {
  job.for_replicas = true;
  gathered_.push_back({.job = job, .then = std::move(then), .answer = {}, .why = {}});
}

void PromiseLine::flush() {
  if (asking_ || gathered_.empty()) {
    return;
  }
  struct Asked {
    PromiseLine& self;
    std::shared_ptr<bool> alive;
    std::shared_ptr<Batch> batch;
  };
  asking_ = true;
  const auto batch = std::make_shared<Batch>(std::exchange(gathered_, {}));
  for (Entry& entry : *batch) {
    entry.answer.trouble = Trouble::kUnknown;
    order_.add(entry.job, [batch, &entry](SharedOrder::Answer<SharedOrder::Added>& answer) {
      // After WAIT it comes too late: that has told of what was before it.
      if (entry.then != nullptr && !answer.why.starts_with("MOVED ") &&
          !answer.why.starts_with("ASK ")) {
        entry.why = answer.why;
        entry.answer = std::move(answer);
      }
    });
  }
  const auto answered = [](void* context, const redisReply* reply) noexcept {
    const std::unique_ptr<Asked> asked(static_cast<Asked*>(context));
    if (*asked->alive) {
      asked->self.waited(*asked->batch, reply != nullptr && reply->type == REDIS_REPLY_INTEGER
                                            ? static_cast<int64_t>(reply->integer)
                                            : -1);
    }
  };
  auto asked = std::make_unique<Asked>(Asked{*this, alive_, batch});
  if (servers_.wait(order_.key(), replicas_, kWaitMs, answered, asked.get())) {
    static_cast<void>(asked.release());
  } else {
    waited(*batch, -1);
  }
}

void PromiseLine::waited(Batch& batch, int64_t replicas) {
  asking_ = false;
  if (replicas >= 0) {
    short_ = replicas < static_cast<int64_t>(replicas_);
  }
  using Admission = SharedOrder::Admission;
  for (Entry& entry : batch) {
    const auto then = std::exchange(entry.then, nullptr);
    const Admission is = entry.answer.value.admission;
    const bool refused = is == Admission::kQueueFull || is == Admission::kOwnerFull ||
                         is == Admission::kTooFar;  // nothing was written
    if (entry.answer && !refused && replicas < static_cast<int64_t>(replicas_)) {
      entry.answer.trouble = Trouble::kUnknown;
    }
    entry.answer.why = entry.why;
    then(entry.answer);
  }
}

}  // namespace penstock::queue
