// OperatorApi: a job that is over runs again, as a new job of the same owner's, in the lowest class
// (POST /jobs/ID/replay?model=NEW&run=NAME). Its body is kept where its queue says `keep_bodies`.
//
// One job is run again once for each model and run: who asks again is told of the job that is
// there, if that has not failed. So a replay that was interrupted may begin anew. What is a replay
// itself is refused.
#include <utility>

#include "shared/http/query.h"
#include "worker/queue/api/operator_api.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/text/json.h"
#include "worker/queue/text/names.h"

namespace penstock::queue {
namespace {

constexpr int64_t kKeyMs = int64_t{30} * 86'400'000;
constexpr uint64_t kRetrySeconds = 2;

// The frame, of the lowest class; if `model`, for that one, which takes the place of the body's.
Result<std::string> frame_again(std::string_view frame, std::string_view model) {
  const wire::Limits any{.submit_bytes = UINT32_MAX};
  const wire::Decoded decoded = wire::decode(frame, any);
  wire::Submit submit;
  if (decoded.kind != wire::Decoded::kFrame ||
      decoded.frame.header.type != wire::FrameType::kSubmit ||
      wire::parse(decoded.frame.payload, submit) != nullptr) {
    return Error{"Its body is damaged."};
  }
  submit.priority = JobRecord::kReplayPriority;
  std::string override;
  if (!model.empty()) {
    const std::string_view had =
        submit.override.size() > 2 ? submit.override.substr(1) : std::string_view("}");
    override = "{\"model\":" + json_string(model) + (had == "}" ? "" : ",") + std::string(had);
    submit.model = model;
    submit.override = override;
  }
  std::string again;
  wire::append(again, 0, submit);
  return again;
}

std::string answer_of(const JobId& from, std::string_view id, bool duplicate) {
  return JsonObject()
      .text("id", id)
      .text("object", "job")
      .text("replay_of", from.view())
      .boolean("duplicate", duplicate)
      .done();
}

}  // namespace

void OperatorApi::replay(Asker asker, std::string_view id, std::string_view asked) {
  const auto job_id = parse_job_id(id);
  auto query = http::Query::parse(asked);
  if (!job_id || !query) {
    return wire::append(
        asker.caller.out(), asker.id,
        invalid(query ? quoted(id) + " is no job's id." : query.error().message, "id"));
  }
  const Again again{*job_id, std::string(query->get("model").value_or("")),
                    std::string(query->get("run").value_or(""))};
  Waiter& waiter = dispatcher_.subscribers().add(asker.caller, asker.id, Waiter::Kind::kQuestion);
  if (dispatcher_.store() == nullptr) {
    return replay_shared(waiter, again);
  }
  Subscribers::ask(waiter);
  dispatcher_.store()->find(*job_id,
                            [this, &waiter, again](const std::optional<JobRecord>& record) {
                              if (!dispatcher_.subscribers().answered(waiter)) {
                                return;
                              }
                              if (!record || !has_ended(record->status)) {
                                return replay_shared(waiter, again);
                              }
                              replay_here(waiter, again, *record);
                            });
}

// What is to be run, by what was. An Error says why it cannot be.
Result<JobRecord> OperatorApi::record_again(const Again& again, const JobRecord& record,
                                            const SharedQueue* shared) {
  if (record.is_replay()) {
    return Error{"It is a replay itself; run again what it was made of."};
  }
  Scheduler::Queue* const queue = dispatcher_.scheduler().find_queue(record.queue);
  if (queue == nullptr) {
    return Error{"Its queue " + quoted(record.queue) + " is not there any more."};
  }
  JobRecord fresh = record;
  if (!again.model.empty()) {
    const Scheduler::Lane* const lane = dispatcher_.served().find(*queue, again.model);
    const std::string* const elsewhere =
        shared == nullptr ? nullptr : shared->roster().find_model(again.model);
    if (lane == nullptr && elsewhere == nullptr) {
      return Error{"No worker of queue " + record.queue + " serves model " + quoted(again.model) +
                   "."};
    }
    fresh.model = lane != nullptr ? lane->model : *elsewhere;
  }
  const int64_t now_ms = dispatcher_.wall_ms();
  fresh.id = dispatcher_.new_id();
  fresh.priority = JobRecord::kReplayPriority;
  fresh.callback.clear();  // whoever asked has been told
  fresh.receipt.clear();   // and has paid
  fresh.paid = true;
  fresh.label = "replay of " + std::string(record.id.view());
  fresh.earlier = {};
  fresh.created_ms = now_ms;
  fresh.not_before_ms = 0;
  fresh.deadline_ms = now_ms + queue->settings.deadline_ns / kNsPerMs;
  fresh.status = JobStatus::kQueued;
  fresh.end = {};
  fresh.result_bytes = 0;
  fresh.result_in_file = false;
  fresh.stored_name.clear();
  fresh.stored_sha256.clear();
  fresh.result_path.clear();
  fresh.promised = true;
  fresh.brief = false;
  const std::string name =
      "replay " + std::string(record.id.view()) + ' ' + fresh.model + ' ' + again.run;
  fresh.key = fresh.digest = jobs_api_.intake().hash_of(name, shared);
  return fresh;
}

void OperatorApi::fail_replay(Waiter& waiter, const std::string& why) {
  fail(waiter, {.status = 409, .code = "invalid_request", .message = why});
}

void OperatorApi::fail_no_body(Waiter& waiter) {
  fail(waiter, {.status = 404,
                .code = "not_found",
                .message = "Nothing is kept of that job's body; a queue keeps them for as long as "
                           "its keep_bodies says."});
}

// ---- of this host's own ----

void OperatorApi::replay_here(Waiter& waiter, const Again& again, const JobRecord& record) {
  auto fresh = record_again(again, record, nullptr);
  if (!fresh) {
    return fail_replay(waiter, fresh.error().message);
  }
  const Job* const there = dispatcher_.find_key(fresh->key);
  if (there != nullptr) {
    return reply(waiter, answer_of(again.id, there->id().view(), true));
  }
  Subscribers::ask(waiter);
  dispatcher_.store()->fetch(record.id, [this, &waiter, again, fresh = *std::move(fresh)](
                                            const Result<std::string>& frame) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    if (!frame) {
      return fail_no_body(waiter);
    }
    const auto submit = frame_again(*frame, again.model.empty() ? "" : fresh.model);
    submit ? keep_here(waiter, again, fresh, *submit) : fail_replay(waiter, submit.error().message);
  });
}

void OperatorApi::keep_here(Waiter& waiter, const Again& again, const JobRecord& fresh,
                            const std::string& frame) {
  Subscribers::ask(waiter);
  const auto promised = [this, &waiter, again, fresh](PromiseOutcome outcome) {
    if (outcome == PromiseOutcome::kStored) {
      dispatcher_.restore(JobRecord(fresh));
    }
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    if (outcome == PromiseOutcome::kStored) {
      return reply(waiter, answer_of(again.id, fresh.id.view(), false));
    }
    if (outcome != PromiseOutcome::kDuplicate) {
      return fail(waiter, {.status = 503,
                           .code = "busy",
                           .message = "It cannot be kept now. Try again in 2 s.",
                           .retry_after_s = kRetrySeconds});
    }
    Subscribers::ask(waiter);
    dispatcher_.store()->find_key(
        fresh.key, [this, &waiter, again](const std::optional<JobRecord>& there) {
          if (dispatcher_.subscribers().answered(waiter)) {
            there ? reply(waiter, answer_of(again.id, there->id.view(), true))
                  : fail_replay(waiter, "Its replay has just ended; ask again.");
          }
        });
  };
  dispatcher_.store()->promise(fresh, SharedBytes(frame), promised);
}

// ---- of queues that hosts share ----

void OperatorApi::replay_shared(Waiter& waiter, const Again& again) {
  if (dispatcher_.shared() == nullptr) {
    return fail_no_body(waiter);
  }
  Subscribers::ask(waiter);
  dispatcher_.shared()->look(
      std::string(again.id.view()), kMostRecordBytes,
      [this, &waiter, again](SharedQueue* queue,
                             const SharedOrder::Answer<SharedOrder::Known>& known) {
        if (!dispatcher_.subscribers().answered(waiter)) {
          return;
        }
        JobRecord record;
        std::string_view result;
        if (!known) {
          return fail_away(waiter);
        }
        if (queue == nullptr || !decode(known.value, record, result)) {
          return fail_no_body(waiter);
        }
        if (!has_ended(record.status)) {
          return fail_replay(waiter, "It has not ended yet.");
        }
        add_again(waiter, again, *queue, record, {});
      });
}

// `instead_of`: its replay of before, which has not completed.
void OperatorApi::add_again(Waiter& waiter, const Again& again, SharedQueue& queue,
                            const JobRecord& record, const std::string& instead_of) {
  auto fresh = record_again(again, record, &queue);
  if (!fresh) {
    return fail_replay(waiter, fresh.error().message);
  }
  Subscribers::ask(waiter);
  const auto added = [this, &waiter, again, &queue, record, id = fresh->id](
                         SharedQueue::Outcome outcome, const SharedOrder::Added& there) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    using Outcome = SharedQueue::Outcome;
    if (outcome == Outcome::kAdded) {
      return reply(waiter, answer_of(again.id, id.view(), false));
    }
    outcome == Outcome::kKeyUsed ? unless_failed(waiter, again, queue, record, there.job)
                                 : fail_away(waiter);
  };
  const auto told = [this, &waiter, again, &queue, added, instead_of,
                     fresh = *fresh](const SharedOrder::Answer<std::string>& body) {
    JobRecord asked;
    std::string_view frame;
    const bool there = body && decode(body.value, asked, frame) && !frame.empty();
    const auto submit = there ? frame_again(frame, again.model.empty() ? "" : fresh.model)
                              : Result<std::string>(Error{""});
    if (!submit) {
      if (dispatcher_.subscribers().answered(waiter)) {
        body ? fail_no_body(waiter) : fail_away(waiter);
      }
      return;
    }
    Newcomer job = dispatcher_.newcomer(fresh, encode(fresh, *submit));
    job.key = hex(fresh.key);
    job.key_is = hex(fresh.digest);
    job.job.key_ms = kKeyMs;
    job.instead_of = instead_of;
    queue.add(std::move(job), added);
  };
  if (!queue.order().body(record.id.view(), told)) {
    SharedOrder::Answer<std::string> none;
    none.trouble = SharedOrder::Trouble::kUnknown;
    told(none);
  }
}

// `other` is its replay. Unless that has ended otherwise than completed, there is no second one.
void OperatorApi::unless_failed(Waiter& waiter, const Again& again, SharedQueue& queue,
                                const JobRecord& record, const std::string& other) {
  Subscribers::ask(waiter);
  const auto told = [this, &waiter, again, &queue, record,
                     other](const SharedOrder::Answer<SharedOrder::Known>& known) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    if (!known) {
      return fail_away(waiter);
    }
    JobRecord there;
    std::string_view result;
    const bool is_there = decode(known.value, there, result);
    if (!is_there || (has_ended(there.status) && there.status != JobStatus::kCompleted)) {
      return add_again(waiter, again, queue, record, other);
    }
    reply(waiter, answer_of(again.id, other, true));
  };
  if (!queue.look(other, kMostRecordBytes, told) && dispatcher_.subscribers().answered(waiter)) {
    fail_away(waiter);
  }
}

}  // namespace penstock::queue
