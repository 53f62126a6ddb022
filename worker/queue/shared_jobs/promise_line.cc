#include "worker/queue/shared_jobs/promise_line.h"

#include <hiredis/hiredis.h>

#include <utility>

#include "shared/base/clock.h"

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
  size_t first = 0;
  size_t bytes = 0;
  for (size_t i = 0; i < batch->size(); ++i) {
    (*batch)[i].answer.trouble = Trouble::kUnknown;
    bytes += (*batch)[i].job.body.size();
    if (i + 1 == batch->size() || i + 1 - first == SharedOrder::kMostAdded ||
        bytes >= SharedOrder::kMostBytes) {
      send(batch, first, i + 1 - first);
      first = i + 1;
      bytes = 0;
    }
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

void PromiseLine::send(const std::shared_ptr<Batch>& batch, size_t first, size_t count) {
  std::vector<SharedOrder::Job> jobs;
  for (size_t i = first; i < first + count; ++i) {
    jobs.push_back((*batch)[i].job);
  }
  order_.add(jobs,
             [batch, first, count](SharedOrder::Answer<std::vector<SharedOrder::Added>>& answer) {
               // After WAIT it comes too late: that has told of what was before it.
               if ((*batch)[first].then == nullptr) {
                 return;
               }
               for (size_t i = 0; i < count; ++i) {
                 Entry& entry = (*batch)[first + i];
                 entry.why = answer.why;
                 entry.answer.trouble = answer.trouble;
                 if (answer) {
                   entry.answer.value = std::move(answer.value[i]);
                 }
               }
             });
}

void PromiseLine::waited(Batch& batch, int64_t replicas) {
  asking_ = false;
  const int64_t now_ns = monotonic_ns();
  if (replicas >= 0) {
    short_ = replicas < static_cast<int64_t>(replicas_);
    acknowledged_.replicas = replicas;
    acknowledged_.at_ns = now_ns;
  }
  if (replicas < static_cast<int64_t>(replicas_)) {
    ++acknowledged_.failed;
    acknowledged_.failed_ns = now_ns;
    acknowledged_.failed_with = replicas;
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
