// Dispatcher: a penstockd that stops.
#include "worker/queue/jobs/caller.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/text/seconds.h"

namespace penstock::queue {

using PromiseState = Job::PromiseState;

// Other hosts let it in at once.
int64_t Dispatcher::drain_retry_s(const Scheduler::Queue& queue) const {
  const SharedQueue* const shared = shared_now(queue);
  return shared != nullptr && shared->roster().others_stay() ? 1 : kDrainRetrySeconds;
}

size_t Dispatcher::unfinished() const {
  size_t running = 0;
  workers_.each([&](const WorkerSession& worker) { running += worker.running_promised(); });
  return unpromised_ + ending_ + running;
}

void Dispatcher::give_up() {
  jobs_.each([&](Job& job) {
    if (job.ending) {
      return;
    }
    const int64_t retry_s =
        job.home() != nullptr ? drain_retry_s(*job.home()->queue) : kDrainRetrySeconds;
    const wire::Failed stopping{.status = 503,
                                .code = "busy",
                                .message = "The service is being stopped or restarted.",
                                .retry_after_s = static_cast<uint64_t>(retry_s)};
    revoke(job);
    if (job.promise == PromiseState::kNone) {
      if (job.looking_up) {
        return turn_away(job, stopping);
      }
      if (job.away) {
        cancel_away(job);
        return turn_away(job, stopping);
      }
      count(job, Metrics::Event::kFailed);
      return end_with(job, JobStatus::kFailed, stopping);
    }
    while (job.waiters() != nullptr) {
      Waiter& waiter = *job.waiters();
      if (waiter.kind == Waiter::Kind::kPromise && job.promise == PromiseState::kMade) {
        waiter.wait_ns = 0;
        replies_.promised(waiter, job);
      } else {
        wire::append(waiter.caller->out(), waiter.id, stopping);
        subscribers_.leave(waiter);
      }
    }
    if (job.shared) {
      give_back(job, std::nullopt);
    }
  });
}

}  // namespace penstock::queue
