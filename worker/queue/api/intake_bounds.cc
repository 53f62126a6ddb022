// Intake: what is refused as it would not be served, or not in time; and by when it is to be.
#include <fmt/format.h>

#include <algorithm>

#include "worker/queue/api/intake.h"
#include "worker/queue/text/names.h"
#include "worker/queue/text/seconds.h"

namespace penstock::queue {

Intake::Refusal Intake::unattended(const Scheduler::Lane& lane, int64_t retry_after_s) const {
  return {dispatcher_.served().unattended_words(lane) + try_again(retry_after_s), retry_after_s};
}

std::optional<Intake::Refusal> Intake::busy(const Order& order, size_t bytes) {
  const Scheduler::Lane& lane = *order.lane;
  const Scheduler::Queue& queue = *lane.queue;
  const std::string& name = queue.settings.name;
  const int64_t now_ns = dispatcher_.connections().now_ns();
  const Dispatcher::Availability now = dispatcher_.availability(lane);
  if (now.state == wire::QueueState::kDraining) {
    return Refusal{"The service is being stopped or restarted." + try_again(now.retry_after_s),
                   now.retry_after_s};
  }
  if (order.shared != nullptr) {  // its bounds are of all hosts, and Redis's to keep
    if (!order.shared->is_there()) {
      return Refusal{"Jobs of queue " + name +
                         " cannot be taken at the moment, as the hosts' Redis "
                         "does not answer." +
                         try_again(kAwayRetrySeconds),
                     kAwayRetrySeconds};
    }
    if (!order.async && now.unattended) {
      return unattended(lane, now.retry_after_s);
    }
    if (!has_room_for(bytes)) {
      const int64_t retry_after_s = spread(order, 0);
      return Refusal{"Queue " + name + " is full." + try_again(retry_after_s), retry_after_s};
    }
    return late(order, 0);  // of its place Redis will judge
  }
  // Whoever sends a key is promised that its answer is kept.
  if ((order.async || order.durable) && !dispatcher_.keeps_up()) {
    return Refusal{"Jobs cannot be kept at the moment, as they cannot be written to disk.", 10};
  }
  if (!order.async && now.unattended) {
    return unattended(lane, now.retry_after_s);
  }
  if (Scheduler::full(queue) || !has_room_for(bytes)) {
    const int64_t retry_after_s = spread(order, 0);
    return Refusal{"Queue " + name + " is full." + try_again(retry_after_s), retry_after_s};
  }
  const int64_t wait_ns = dispatcher_.scheduler().predicted_wait_ns(lane, order.entry, now_ns);
  if (Scheduler::full(queue, order.entry.owner)) {
    // A place of the caller's is free when its next job starts: about one N-th of the way to where
    // one more would stand behind N.
    const int64_t most = queue.settings.max_per_owner;
    const int64_t retry_after_s = whole_seconds(wait_ns / (most + 1));
    return Refusal{fmt::format("You have {} jobs waiting in queue {}, as many as one caller may "
                               "have.{}",
                               most, name, try_again(retry_after_s)),
                   retry_after_s};
  }
  return late(order, wait_ns);
}

// What is foreseen to come later than it is waited for, or when nobody knows.
std::optional<Intake::Refusal> Intake::late(const Order& order, int64_t wait_ns) {
  const Scheduler::Lane& lane = *order.lane;
  const int64_t run_ns = Scheduler::usual_ns(lane, order.entry.cost);
  const int64_t done_ns = wait_ns + run_ns;
  const struct {
    int64_t foreseen_ns;
    int64_t most_ns;  // 0: however long
    std::string_view words;
  } each[] = {
      {wait_ns, order.async ? 0 : order.max_wait_ns,
       "The wait would be {} s, longer than is waited for here.{}"},
      {wait_ns, order.start_within_ns, "It would start in {} s, later than was asked for.{}"},
      {done_ns, order.finish_within_ns, "It would be done in {} s, later than was asked for.{}"}};
  if (order.finish_within_ns > 0 && run_ns > order.finish_within_ns) {  // however long it waits
    return Refusal{fmt::format("Such a job takes {} s once it has started, longer than was asked "
                               "for.",
                               whole_seconds(run_ns)),
                   kPausedRetrySeconds};
  }
  for (const auto& [foreseen_ns, most_ns, words] : each) {
    if (most_ns <= 0 || order.record.not_before_ms != 0) {
      continue;
    }
    if (lane.queue->paused) {
      return Refusal{"Queue " + lane.queue->settings.name +
                         " is paused, and nobody knows for how long." +
                         try_again(kPausedRetrySeconds),
                     kPausedRetrySeconds};
    }
    if (foreseen_ns > most_ns) {
      const int64_t retry_after_s = spread(order, foreseen_ns - most_ns);
      return Refusal{
          fmt::format(fmt::runtime(words), whole_seconds(foreseen_ns), try_again(retry_after_s)),
          retry_after_s};
    }
  }
  return std::nullopt;
}

// When to come back after `wait_ns`: each caller at a time of its own, as places become free one by
// one.
int64_t Intake::spread(const Order& order, int64_t wait_ns) {
  const Scheduler::Queue& queue = *order.lane->queue;
  const int64_t now_ns = dispatcher_.connections().now_ns();
  const Scheduler::Lane& any = *queue.lanes.front();
  const AllHosts& all = any.all_hosts;  // each of which tells its callers a time
  const double step = all.shared ? all.mean_ns / std::max(1U, all.slots) * std::max(1U, all.hosts)
                                 : any.service.mean_ns() / std::max(1U, dispatcher_.slots(queue));
  const auto step_ns = static_cast<int64_t>(step);
  // All that wait now will have left by then, so that nobody is told a later time, however many
  // are told one, or seem to be many.
  const double waiting = all.shared ? all.in_line / std::max(1U, all.hosts) : queue.waiting;
  const double drained = std::min<double>(step * waiting, kMaxRetrySeconds * kNsPerSec);
  const int64_t latest_ns = now_ns + std::max(wait_ns, static_cast<int64_t>(drained));
  const auto place = reinterpret_cast<uintptr_t>(&queue);
  const int64_t at_ns = returns_.tell(place, order.share.lo, now_ns,
                                      now_ns + std::max(wait_ns, step_ns), step_ns, latest_ns);
  dispatcher_.note_return(queue, at_ns);
  return whole_seconds(at_ns - now_ns);
}

// By when it is to have started, and to be done: of its queue's deadline and its caller's the
// sooner.
void Intake::set_deadlines(Job& job, Order& order) {
  const int64_t begins_ns = std::max(order.entry.not_before_ns, dispatcher_.connections().now_ns());
  const int64_t queues_ns = order.lane->queue->settings.deadline_ns;
  int64_t within_ns = order.finish_within_ns > 0 ? order.finish_within_ns : INT64_MAX;
  within_ns = queues_ns > 0 ? std::min(queues_ns, within_ns) : within_ns;
  if (order.async && within_ns != INT64_MAX) {
    const int64_t begins_ms = std::max(order.record.not_before_ms, order.record.created_ms);
    order.record.deadline_ms = begins_ms + within_ns / kNsPerMs;
  }
  const int64_t ends_by_ns = within_ns == INT64_MAX ? INT64_MAX : begins_ns + within_ns;
  if (order.start_within_ns > 0 && order.start_within_ns < within_ns) {
    job.extra().ends_by_ns = ends_by_ns;
    order.entry.deadline_ns = begins_ns + order.start_within_ns;
  } else if (order.finish_within_ns > 0) {
    order.entry.deadline_ns = ends_by_ns;
  }
}

}  // namespace penstock::queue
