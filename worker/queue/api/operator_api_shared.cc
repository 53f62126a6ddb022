// OperatorApi: dead letters of queues that hosts share. Any host shows, drops and queues them
// again.
#include <fmt/format.h>

#include "worker/queue/api/operator_api.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/text/json.h"
#include "worker/queue/text/log.h"
#include "worker/queue/traces/job_trace.h"

namespace penstock::queue {

void OperatorApi::fail_away(Waiter& waiter) {
  fail(waiter, {.status = 503,
                .code = "busy",
                .message = "The hosts' Redis does not answer. Try again in 2 s.",
                .retry_after_s = 2});
}

void OperatorApi::find_shared(Waiter& waiter, const JobId& id, Deed deed) {
  if (dispatcher_.shared() == nullptr) {
    return fail_none(waiter);
  }
  Subscribers::ask(waiter);
  dispatcher_.shared()->look(
      std::string(id.view()), kMostRecordBytes,
      [this, &waiter, deed](SharedQueue* queue,
                            const SharedOrder::Answer<SharedOrder::Known>& known) {
        if (!dispatcher_.subscribers().answered(waiter)) {
          return;
        }
        if (!known) {
          return fail_away(waiter);
        }
        JobRecord record;
        std::string_view result;
        if (queue == nullptr || !decode(known.value, record, result) || !record.end.dead) {
          return fail_none(waiter);
        }
        (this->*deed.shared)(waiter, *queue, record);
      });
}

void OperatorApi::show_shared(Waiter& waiter, SharedQueue& queue, const JobRecord& job) {
  Subscribers::ask(waiter);
  const auto told = [this, &waiter, job](const SharedOrder::Answer<std::string>& body) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    JobRecord asked;
    std::string_view frame;
    if (!decode(body.value, asked, frame)) {
      frame = {};
    }
    say_dead(waiter, job, frame);
  };
  if (!queue.order().body(job.id.view(), told)) {
    told({});
  }
}

void OperatorApi::requeue_shared(Waiter& waiter, SharedQueue& queue, const JobRecord& job) {
  Subscribers::ask(waiter);
  const auto told = [this, &waiter, &queue,
                     id = job.id](const SharedOrder::Answer<std::string>& body) {
    JobRecord asked;
    std::string_view frame;
    if (!body || !decode(body.value, asked, frame) || frame.empty()) {
      if (dispatcher_.subscribers().answered(waiter)) {
        body ? fail_none(waiter) : fail_away(waiter);
      }
      return;
    }
    asked.not_before_ms = 0;
    asked.status = JobStatus::kQueued;
    asked.paid = true;
    asked.trace = renewed_trace(asked.trace, ulid_of(asked.id), dispatcher_.wall_ms());
    Newcomer again = dispatcher_.newcomer(asked, encode(asked, frame));
    again.job.anew = again.job.force = true;
    queue.add(std::move(again),
              [this, &waiter, asked](SharedQueue::Outcome outcome, const SharedOrder::Added&) {
                if (!dispatcher_.subscribers().answered(waiter)) {
                  return;
                }
                if (outcome != SharedQueue::Outcome::kAdded) {
                  return fail_away(waiter);
                }
                log(Level::kInfo, "job " + std::string(asked.id.view()) + ": queued again");
                reply(waiter, render(operator_view_of(asked)));
              });
  };
  if (!queue.order().body(job.id.view(), told)) {
    SharedOrder::Answer<std::string> none;
    none.trouble = SharedOrder::Trouble::kUnknown;
    told(none);
  }
}

void OperatorApi::drop_shared(Waiter& waiter, SharedQueue& queue, const JobRecord& job) {
  Subscribers::ask(waiter);
  const auto told = [this, &waiter, id = job.id](const SharedOrder::Answer<bool>& dropped) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    if (!dropped) {
      return fail_away(waiter);
    }
    reply(waiter, JsonObject()
                      .text("id", id.view())
                      .text("object", "job")
                      .boolean("dropped", dropped.value)
                      .done());
  };
  if (!queue.order().drop(job.id.view(), told)) {
    SharedOrder::Answer<bool> none;
    none.trouble = SharedOrder::Trouble::kUnknown;
    told(none);
  }
}

}  // namespace penstock::queue
