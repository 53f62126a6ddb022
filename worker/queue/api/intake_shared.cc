// Intake: jobs of queues that hosts share. Redis lets them in, by its bounds and keys; they are
// promised once it has said so.
#include <fmt/format.h>

#include <algorithm>

#include "worker/queue/api/intake.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/text/seconds.h"

namespace penstock::queue {
namespace {

constexpr int64_t kUsPerMs = 1000;
constexpr int64_t kJoinsMs = 3'600'000;  // others join it as its same (penstock_dedupe), at most
constexpr int64_t kKeepsKeyMs = int64_t{30} * 86'400'000;  // while its job is known, at most

wire::Failed other_request() {
  return {.status = 422,
          .code = "duplicate",
          .message = "This Idempotency-Key came with another request before.",
          .param = "Idempotency-Key"};
}

}  // namespace

// `instead_of`: a job that had its key, and has not completed.
void Intake::share(const JobId& id, const Order& order, const std::string& instead_of) {
  Job& job = *dispatcher_.find(id);
  JobRecord& record = *job.more->keep;
  record.promised = order.async;
  record.brief = !order.async && !order.durable;
  Newcomer newcomer =
      newcomer_of(order, record, encode(record, job.more->frame.view()), job.more->ends_by_ns);
  newcomer.instead_of = instead_of;
  Order kept = order;
  kept.head = encode(record, job.more->receipt);
  if (!job.more->receipt.empty()) {
    dispatcher_.shared()->receipts().note(id, kept.head);
  }
  order.shared->add(std::move(newcomer),
                    [this, id, order = std::move(kept)](SharedQueue::Outcome outcome,
                                                        const SharedOrder::Added& added) {
                      shared(id, order, outcome, added);
                    });
}

Newcomer Intake::newcomer_of(const Order& order, const JobRecord& record, std::string body,
                             int64_t ends_by_ns) const {
  const int64_t now_ns = dispatcher_.connections().now_ns();
  const int64_t now_ms = dispatcher_.wall_ms();
  const auto date_us = [&](int64_t at_ns) {
    return at_ns == INT64_MAX ? SharedOrder::kNever
                              : (now_ms + (at_ns - now_ns) / kNsPerMs) * kUsPerMs;
  };
  Newcomer newcomer = dispatcher_.newcomer(record, std::move(body));
  newcomer.promised = order.async;
  if (record.digest != limit::Hash128{}) {
    newcomer.key = hex(record.key);
    newcomer.key_is = hex(record.digest);
    newcomer.job.key_ms = order.durable ? kKeepsKeyMs : kJoinsMs;
  }
  newcomer.job.deadline_us = order.entry.deadline_ns == 0 ? 0 : date_us(order.entry.deadline_ns);
  newcomer.job.ends_by_us = ends_by_ns == 0 ? 0 : date_us(ends_by_ns);
  newcomer.job.last_position = last_position(order);
  return newcomer;
}

bool Intake::is_short_of_memory(const Order& order) const {
  return dispatcher_.shared()->memory().is_nearly_full(order.shared->key());
}

// The last place from which it would not come too late, by what is known now.
int64_t Intake::last_position(const Order& order) const {
  if (is_short_of_memory(order)) {
    return SharedOrder::kNowhere;
  }
  const int64_t usual_ns = Scheduler::usual_ns(*order.lane, order.entry.cost);
  int64_t most_ns = INT64_MAX;
  for (const int64_t each_ns :
       {order.async ? 0 : order.max_wait_ns, order.start_within_ns,
        order.finish_within_ns > 0 ? std::max<int64_t>(order.finish_within_ns - usual_ns, 1) : 0}) {
    most_ns = each_ns > 0 ? std::min(most_ns, each_ns) : most_ns;
  }
  const uint32_t last = order.record.not_before_ms != 0 || most_ns == INT64_MAX
                            ? UINT32_MAX
                            : order.lane->all_hosts.rank_within(most_ns);
  return last == UINT32_MAX ? 0 : last == 0 ? SharedOrder::kNowhere : last;
}

// Should it be there, nobody asks for it. What was to be promised goes on.
void Intake::unwanted(const JobId& id, const Order& order) {
  if (!order.async) {
    order.shared->see_cancelled(id.view(), order.head, order.durable ? 0 : kBriefMs);
  }
}

// Those who asked have left. If they heard nothing, what was to be promised goes on, and has what
// the edge charged; or that is given back. What they heard has settled that.
void Intake::nobody_heard(const JobId& id, const Order& order, bool may_be_there) {
  JobRecord record;
  std::string_view receipt;
  if (!order.async) {
    return may_be_there ? unwanted(id, order) : void();
  }
  if (dispatcher_.shared()->receipts().contains(sequence_of(id)) &&
      decode(order.head, record, receipt)) {
    may_be_there ? dispatcher_.recall(*order.shared, record, receipt)
                 : dispatcher_.refund(id, receipt);
  }
}

void Intake::shared(const JobId& id, const Order& order, SharedQueue::Outcome outcome,
                    const SharedOrder::Added& added) {
  using Outcome = SharedQueue::Outcome;
  Job* job = dispatcher_.find(id);
  if (job != nullptr && !job->looking_up) {
    job = nullptr;  // those who asked have left, and a worker of this host has it by now
  }
  const bool may_be_there =
      outcome == Outcome::kAdded || outcome == Outcome::kAway || outcome == Outcome::kFewReplicas;
  if (job == nullptr) {
    return nobody_heard(id, order, may_be_there);
  }
  if (outcome != Outcome::kAdded) {
    dispatcher_.shared()->receipts().forget(sequence_of(id));
  }
  const Scheduler::Queue& queue = *order.lane->queue;
  switch (outcome) {
    case Outcome::kAdded:
      if (added.admission == SharedOrder::Admission::kAdded) {  // else it is asked for soon
        job->more->position = static_cast<uint32_t>(std::min<int64_t>(added.position, UINT32_MAX));
      }
      return dispatcher_.hand_over(*job, *order.lane, order.entry.owner, order.async);
    case Outcome::kTooFar: {
      if (is_short_of_memory(order)) {
        return refuse_all(*job, Refusal{"Jobs of queue " + queue.settings.name +
                                            " cannot be taken at the moment, as the memory of the "
                                            "hosts' Redis is nearly full." +
                                            try_again(kFullRetrySeconds),
                                        kFullRetrySeconds}
                                    .failed());
      }
      const auto place = static_cast<uint32_t>(std::min<int64_t>(added.position, UINT32_MAX));
      const auto refusal = late(order, order.lane->all_hosts.wait_ns(place));
      return refusal ? refuse_all(*job, refusal->failed()) : share(id, order);
    }
    case Outcome::kKeyUsed:
      return key_used(id, order, added);
    case Outcome::kQueueFull:
      return refuse_shared(*job, order, "Queue " + queue.settings.name + " is full.");
    case Outcome::kOwnerFull:
      return refuse_shared(
          *job, order,
          fmt::format("You have {} jobs waiting in queue {}, as many as one caller may have.",
                      queue.settings.max_per_owner, queue.settings.name));
    case Outcome::kAway:
    case Outcome::kFewReplicas:
      unwanted(id, order);
      const std::string message =
          (outcome == Outcome::kAway
               ? "The job may not have been kept: the hosts' Redis has not answered."
               : "The job may not have been kept: too few of Redis's replicas answer.") +
          try_again(kAwayRetrySeconds);
      return refuse_all(*job, Refusal{message, kAwayRetrySeconds}.failed());
  }
}

void Intake::refuse_shared(Job& job, const Order& order, std::string_view why) {
  const int64_t retry_after_s = spread(order, 0);
  const Refusal refusal{std::string(why) + try_again(retry_after_s), retry_after_s};
  turn_away(job, order, refusal.failed());
}

// Another job has its key. If that asked for the same, it is as if this were that.
void Intake::key_used(const JobId& id, const Order& order, const SharedOrder::Added& added) {
  Job& job = *dispatcher_.find(id);
  if (added.key_is != hex(job.more->keep->digest)) {
    return refuse_all(job, other_request());
  }
  const auto told = [this, id, order,
                     other = added.job](const SharedOrder::Answer<SharedOrder::Known>& answer) {
    Job* const it = dispatcher_.find(id);
    if (it == nullptr) {
      return;
    }
    if (!answer) {
      return shared(id, order, SharedQueue::Outcome::kAway, {});
    }
    known(*it, order, other, *order.shared, answer.value);
  };
  if (!order.shared->look(added.job, 0, told)) {
    shared(id, order, SharedQueue::Outcome::kAway, {});
  }
}

void Intake::known(Job& job, const Order& order, const std::string& other, SharedQueue& queue,
                   const SharedOrder::Known& known) {
  JobRecord record;
  std::string_view answer;
  const bool is_there = decode(known, record, answer);
  if (!is_there || (has_ended(record.status) && record.status != JobStatus::kCompleted)) {
    return share(job.id(), order, other);
  }
  if (has_ended(record.status) && !order.durable) {  // it is not being made any more
    return share(job.id(), order, other);
  }
  if (has_ended(record.status) && !record.stored_name.empty() &&
      dispatcher_.shared()->results() != nullptr) {
    const auto brought = [this, id = job.id(), order](const Result<JobRecord>& whole) {
      Job* const it = dispatcher_.find(id);
      if (it == nullptr) {
        return;
      }
      const std::string_view none;
      whole ? replay(*it, *whole, *order.lane, &none)
            : shared(id, order, SharedQueue::Outcome::kAway, {});
    };
    return dispatcher_.shared()->results()->bring(record, brought);
  }
  if (has_ended(record.status)) {
    return replay(job, record, *order.lane, &answer);
  }
  if (order.reject) {
    return refuse_all(job, in_flight());
  }
  if (!order.async || !record.promised || queue.journal() == nullptr ||
      queue.journal()->contains(other)) {
    return join_away(job, order, queue, record, known);
  }
  record.key = job.more->keep->key;
  const auto noted = [this, id = job.id(), order, other, record, known, &queue](bool written) {
    Job* const it = dispatcher_.find(id);
    written ? queue.journal()->promised(other) : queue.journal()->forget(other);
    if (it != nullptr) {
      written ? join_away(*it, order, queue, record, known)
              : shared(id, order, SharedQueue::Outcome::kAway, {});
    }
  };
  queue.journal()->note(newcomer_of(order, record, known.result, 0), noted);
}

// Those who asked for it wait for the other, which hosts have.
void Intake::join_away(Job& job, const Order& order, SharedQueue& queue, const JobRecord& record,
                       const SharedOrder::Known& known) {
  Job& there = dispatcher_.watch(queue, record, known);
  while (job.waiters() != nullptr) {
    Waiter& waiter = *job.waiters();
    Subscribers::detach(waiter);
    waiter.duplicate = true;
    dispatcher_.count(*order.lane->queue, Metrics::Event::kDuplicate);
    dispatcher_.count_joined(*order.lane, order.owner.lo);
    dispatcher_.subscribers().join(waiter, there);
    if (waiter.kind == Waiter::Kind::kPromise && record.promised) {
      dispatcher_.replies().promised(waiter, there);
    } else {
      waiter.kind = Waiter::Kind::kPromise;  // it gets the answer once that is whole
      waiter.wait_ns = Waiter::kToTheEnd;
    }
  }
  dispatcher_.forget(job);
}

}  // namespace penstock::queue
