// Intake: requests that ask for the same, by an Idempotency-Key or by what they are.
#include "worker/queue/api/intake.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/text/jobs_path.h"
#include "worker/queue/text/reply.h"
#include "worker/queue/text/seconds.h"

namespace penstock::queue {
namespace {

// Parts that follow each other cannot be taken for others: each has its length before it.
void append_part(std::string& text, std::string_view part) {
  const uint64_t size = part.size();
  text.append(reinterpret_cast<const char*>(&size), sizeof size).append(part);
}

// Within whom a key or a request is one: the owner, or whoever's share it takes where there is
// none.
void append_scope(std::string& text, const wire::Submit& submit) {
  append_part(text, submit.owner);
  if (submit.owner.empty() && !submit.share.empty()) {
    append_part(text, "share");
    append_part(text, submit.share);
  }
}

}  // namespace

void Intake::append_asked(std::string& text, const wire::Submit& submit) {
  for (const std::string_view part : {submit.queue, submit.model, submit.path, submit.content_type,
                                      submit.override, submit.body}) {
    append_part(text, part);
  }
}

// A client's own key names one request of one caller's; without one, `penstock_dedupe` makes the
// request its own key.
void Intake::hash_key(const wire::Submit& submit, const JobOptions& options, Order& order) const {
  order.durable =
      !options.key.empty() && (dispatcher_.store() != nullptr || order.shared != nullptr);
  const limit::Secret& secret = secret_in(order.shared);
  if (options.key.empty() && submit.dedupe == 0) {
    return;
  }
  std::string asked;
  append_scope(asked, submit);
  append_asked(asked, submit);
  // Who wants a webhook, or another time to start, asks for something else than who wants none.
  for (const auto& [name, value] : {std::pair{"callback", submit.callback},
                                    {"delay", submit.delay},
                                    {"not_before", submit.not_before},
                                    {"query", submit.query}}) {
    if (!value.empty()) {
      append_part(asked, name);
      append_part(asked, value);
    }
  }
  order.record.digest = limit::siphash13_128(secret, asked);
  if (options.key.empty()) {
    order.record.key = order.record.digest;
    return;
  }
  std::string named = "key";
  append_scope(named, submit);
  append_part(named, options.key);
  order.record.key = limit::siphash13_128(secret, named);
}

// True: the request has been seen to, by a job that is there.
bool Intake::join(Caller& caller, uint64_t id, const wire::Submit& submit,
                  const JobOptions& options, const Order& order) {
  Job* const job =
      order.record.digest == limit::Hash128{} ? nullptr : dispatcher_.find_key(order.record.key);
  if (job == nullptr || job->more->key != order.record.key) {
    return false;
  }
  if (job->more->digest != order.record.digest) {
    refuse(caller, id,
           {.status = 422,
            .code = "duplicate",
            .message = "This Idempotency-Key came with another request before.",
            .param = "Idempotency-Key"});
    return true;
  }
  if (order.reject) {
    refuse(caller, id, in_flight());
    return true;
  }
  // An answer that is not in memory from its beginning is had from the store, once it is whole.
  const bool late = job->answer_began && !job->more->answer.whole();
  if (late && !dispatcher_.is_stored(*job)) {
    return false;
  }
  // Of what is not promised there is no 202: its answer is shared.
  const bool promised = job->promise != Job::PromiseState::kNone || job->looking_up;
  const bool async = options.async && promised;
  Waiter& waiter = dispatcher_.subscribers().add(
      caller, id, async || late || job->ending ? Waiter::Kind::kPromise : Waiter::Kind::kAnswer);
  dispatcher_.count(*order.lane->queue, Metrics::Event::kDuplicate);
  dispatcher_.count_joined(*order.lane, order.owner.lo);
  waiter.duplicate = true;
  waiter.wait_ns = async ? options.wait_ns : Waiter::kToTheEnd;
  waiter.jobs_path = jobs_path_or_default(submit.jobs_path);
  want_news(waiter, submit);
  dispatcher_.subscribers().join(waiter, *job);
  if (waiter.kind == Waiter::Kind::kAnswer) {
    dispatcher_.replies().accepted(waiter, *job);
    if (job->answer_began) {
      dispatcher_.subscribers().replay(waiter, *job);
    }
  } else if (async && job->promise == Job::PromiseState::kMade) {
    dispatcher_.replies().promised(waiter, *job);
  }
  return true;
}

// A key is one job, though this host's jobs have other hashes than those that hosts share. Alone it
// serves no key that it has brought to Redis; and what it has served alone it finds again.
bool Intake::mind_local(Caller& caller, uint64_t id, const wire::Submit& submit,
                        const JobOptions& options, Order& order) {
  SharedQueue* const shared = dispatcher_.shared(*order.lane->queue);
  if (shared == nullptr || !order.durable || dispatcher_.store() == nullptr ||
      !dispatcher_.is_local_on_error(*order.lane->queue)) {
    return true;
  }
  Order other = order;
  other.shared = order.shared == nullptr ? shared : nullptr;
  hash_key(submit, options, other);
  if (order.shared != nullptr) {
    order.may_be_local = true;
    order.local_key = other.record.key;
    order.local_digest = other.record.digest;
    brought_.add(order.record.key);
    return !join(caller, id, submit, options, other);
  }
  if (!brought_.contains(other.record.key)) {
    return true;
  }
  const Refusal refusal{"A job of this key is in the hosts' Redis, which does not answer." +
                            try_again(kAwayRetrySeconds),
                        kAwayRetrySeconds};
  refuse(caller, id, refusal.failed());
  return false;
}

// The key is not of a job that is alive; it may be of one that has completed.
void Intake::look_up(Job& job, Order order) {
  job.looking_up = true;
  const limit::Hash128 key = order.may_be_local ? order.local_key : order.record.key;
  dispatcher_.store()->find_key(key, [this, id = job.id(), order = std::move(order)](
                                         std::optional<JobRecord> earlier) mutable {
    found(id, std::move(order), std::move(earlier));
  });
}

void Intake::found(const JobId& id, Order order, std::optional<JobRecord> earlier) {
  Job* const job = dispatcher_.find(id);
  if (job == nullptr) {
    return;  // those who asked have left
  }
  job->looking_up = false;
  if (earlier && earlier->status == JobStatus::kCompleted) {
    if (order.may_be_local) {
      job->more->digest = order.local_digest;
    }
    return replay(*job, *earlier, *order.lane);
  }
  if (const auto refusal = busy(order, 0)) {
    return turn_away(*job, order, refusal->failed());
  }
  check(*job, std::move(order));
}

// The job that had this key has completed: whoever asks gets what came of it.
void Intake::replay(Job& job, const JobRecord& earlier, const Scheduler::Lane& lane,
                    const std::string_view* answer) {
  const Scheduler::Queue& queue = *lane.queue;
  if (earlier.digest != job.more->digest) {
    return refuse_all(job, {.status = 422,
                            .code = "duplicate",
                            .message = "This Idempotency-Key came with another request before.",
                            .param = "Idempotency-Key"});
  }
  while (job.waiters() != nullptr) {
    Waiter& waiter = *job.waiters();
    Subscribers::detach(waiter);
    waiter.duplicate = true;
    dispatcher_.count(queue, Metrics::Event::kDuplicate);
    dispatcher_.count_joined(lane, job.owner);
    if (waiter.kind == Waiter::Kind::kPromise && waiter.wait_ns == 0) {
      const std::string headers =
          "Location: " + waiter.jobs_path + "/" + std::string(earlier.id.view()) +
          "\nPreference-Applied: respond-async\n" + std::string(kDuplicateHeader);
      JobView view = view_of(earlier);
      view.jobs_path = waiter.jobs_path;
      wire::append(waiter.caller->out(), waiter.id, wire::Accepted{.job_id = earlier.id.view()});
      append_reply(waiter.caller->out(), waiter.id,
                   {.status = 202, .content_type = kJson, .headers = headers, .duplicate = 1},
                   render(view));
      dispatcher_.subscribers().leave(waiter);
    } else {
      wire::append(waiter.caller->out(), waiter.id, wire::Accepted{.job_id = earlier.id.view()});
      answer == nullptr
          ? dispatcher_.replies().stored_result(waiter, earlier, kDuplicateHeader)
          : dispatcher_.replies().given_result(waiter, earlier, *answer, kDuplicateHeader);
    }
  }
  dispatcher_.forget(job);
}

}  // namespace penstock::queue
