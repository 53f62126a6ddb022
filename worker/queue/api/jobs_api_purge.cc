// JobsApi: a job that is over is forgotten, and nothing of it is kept: its body, its result, the
// key it was asked by, and what was to be told of it.
#include "worker/queue/api/jobs_api.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/shared_jobs/large_results.h"
#include "worker/queue/text/json.h"
#include "worker/queue/text/log.h"
#include "worker/queue/text/reply.h"

namespace penstock::queue {

// It is purged whether whoever wanted it still listens or not.
void JobsApi::purge(Waiter& waiter, const JobRecord& record) {
  Subscribers::ask(waiter);
  dispatcher_.store()->purge(record.id, [this, &waiter, id = record.id](bool purged) {
    if (dispatcher_.subscribers().answered(waiter)) {
      say_purged(waiter, id, purged);
    }
  });
}

// Redis has it, for all hosts. A large result that cannot be removed now goes when it would have
// without that.
void JobsApi::purge_shared(Waiter& waiter, SharedQueue& queue, const JobRecord& record) {
  Subscribers::ask(waiter);
  const auto told = [this, &waiter, &queue, id = record.id,
                     large = record.stored_name](const SharedOrder::Answer<bool>& dropped) {
    LargeResults* const results = dispatcher_.shared()->results();
    if (dropped && dropped.value && !large.empty() && results != nullptr) {
      results->remove(queue.order(), large);
    }
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    dropped ? say_purged(waiter, id, dropped.value) : fail_away(waiter);
  };
  if (!queue.order().drop(record.id.view(), told)) {
    SharedOrder::Answer<bool> none;
    none.trouble = SharedOrder::Trouble::kUnknown;
    told(none);
  }
}

void JobsApi::say_purged(Waiter& waiter, const JobId& id, bool purged) {
  if (!purged) {
    return fail(waiter, not_found());
  }
  append_reply(
      waiter.caller->out(), waiter.id,
      {.status = 200, .content_type = kJson, .headers = "Cache-Control: no-store\n"},
      JsonObject().text("id", id.view()).text("object", "job").boolean("purged", true).done());
  dispatcher_.subscribers().leave(waiter);
}

}  // namespace penstock::queue
