#include "worker/queue/publish/history.h"

#include <numeric>

#include "worker/queue/publish/status_report.h"
#include "worker/queue/text/json.h"

namespace penstock::queue {
namespace {

uint64_t count_of(const wire::QueueMetrics& queue, Metrics::Event event) {
  return queue.events[static_cast<size_t>(event)];
}

// A place on the page that another queue has taken begins anew.
uint64_t since(uint64_t now, uint64_t then) { return now >= then ? now - then : now; }

std::string or_null(std::optional<int64_t> number) {
  return number ? std::to_string(*number) : "null";
}

}  // namespace

std::vector<QueueLook> look_at(Dispatcher& dispatcher) {
  using Event = Metrics::Event;
  std::vector<QueueLook> looks;
  for (Scheduler::Queue& queue : dispatcher.scheduler().queues()) {
    if (queue.retired && queue.waiting + queue.running == 0) {
      continue;
    }
    const StatusPageWriter::Row row = status_of_all_hosts(dispatcher, queue);
    const wire::QueueMetrics& counts = dispatcher.metrics().of(queue.settings.name);
    QueueLook look{.name = queue.settings.name, .waiting = row.length, .running = row.running};
    if (row.predicted_wait_ms != wire::kNoPredictedWait && row.slots > 0) {
      look.promised_ms = static_cast<int64_t>(row.predicted_wait_ms);
    }
    look.arrived = count_of(counts, Event::kAccepted);
    for (const Event event : {Event::kCompleted, Event::kFailed, Event::kCancelled}) {
      look.ended += count_of(counts, event);
    }
    look.completed = count_of(counts, Event::kCompleted);
    look.failed = count_of(counts, Event::kFailed);
    for (const wire::ClassMetrics& each : counts.classes) {
      look.started +=
          std::accumulate(std::begin(each.wait.count), std::end(each.wait.count), uint64_t{0});
      look.waited_s += each.wait.sum;
    }
    looks.push_back(std::move(look));
  }
  return looks;
}

void History::advance_to(int64_t now_ns, int64_t wall_ms, const std::vector<QueueLook>& looks) {
  if (now_ns < due_ns_) {
    return;
  }
  if (due_ns_ != 0) {
    rows_.push_back(row((now_ns - since_ns_) / kNsPerSec, wall_ms, looks));
    if (rows_.size() > kRows) {
      rows_.pop_front();
    }
  }
  then_.clear();
  for (const QueueLook& look : looks) {
    then_[look.name] = look;
  }
  since_ns_ = now_ns;
  due_ns_ = now_ns + kStepNs;
}

std::string History::json(int64_t now_ns, int64_t wall_ms,
                          const std::vector<QueueLook>& looks) const {
  JsonList rows;
  for (const std::string& each : rows_) {
    rows.add(each);
  }
  rows.add(row((now_ns - since_ns_) / kNsPerSec, wall_ms, looks));
  return JsonObject().number("step_seconds", kStepNs / kNsPerSec).raw("rows", rows.done()).done();
}

std::string History::row(int64_t seconds, int64_t wall_ms,
                         const std::vector<QueueLook>& looks) const {
  JsonList queues;
  for (const QueueLook& look : looks) {
    const auto found = then_.find(look.name);
    const QueueLook before = found == then_.end() ? QueueLook{} : found->second;
    const uint64_t started = since(look.started, before.started);
    std::optional<int64_t> waited_ms;
    if (started > 0 && look.started >= before.started) {
      waited_ms = static_cast<int64_t>((look.waited_s - before.waited_s) * 1000 /
                                       static_cast<double>(started));
    }
    queues.add(
        JsonObject()
            .text("name", look.name)
            .number("waiting", look.waiting)
            .number("running", look.running)
            .number("in", static_cast<int64_t>(since(look.arrived, before.arrived)))
            .number("out", static_cast<int64_t>(since(look.ended, before.ended)))
            .number("completed", static_cast<int64_t>(since(look.completed, before.completed)))
            .number("failed", static_cast<int64_t>(since(look.failed, before.failed)))
            .raw("promised_ms", or_null(look.promised_ms))
            .raw("waited_ms", or_null(waited_ms))
            .done());
  }
  return JsonObject()
      .number("at", wall_ms / 1000)
      .number("seconds", seconds)
      .raw("queues", queues.done())
      .done();
}

}  // namespace penstock::queue
