#include "worker/queue/publish/publisher.h"

#include <algorithm>
#include <iterator>

#include "worker/queue/publish/page_rows.h"
#include "worker/queue/publish/status_report.h"

namespace penstock::queue {
namespace {

constexpr int64_t kMetricsNs = kNsPerSec;  // between two pages of figures

template <size_t N>
void add(uint64_t (&to)[N], std::initializer_list<uint64_t> counts) {
  std::transform(counts.begin(), counts.end(), to, to, std::plus<>());
}

}  // namespace

Result<Publisher> Publisher::create(const std::string& socket, const Access& access) {
  auto status = StatusPageWriter::create(socket + ".status", access);
  if (!status) {
    return status.error();
  }
  auto metrics = PublishedFile::create(socket + ".metrics", access, bytes_of(wire::MetricsPage()));
  if (!metrics) {
    return metrics.error();
  }
  return Publisher(*std::move(status), *std::move(metrics));
}

void Publisher::publish(const Sources& sources, const AwakeClock& clock, int64_t now_ns) {
  publish_status(sources.dispatcher, clock, now_ns);
  if (metrics_due_ns_ <= now_ns) {
    publish_metrics(sources, now_ns);
  }
}

int64_t Publisher::next_event() const {
  return std::min({heartbeat_due_ns_, metrics_due_ns_, status_.next_event()});
}

void Publisher::publish_status(Dispatcher& dispatcher, const AwakeClock& clock, int64_t now_ns) {
  for (Scheduler::Queue& queue : dispatcher.scheduler().queues()) {
    if (queue.retired && queue.waiting + queue.running == 0) {
      status_.retire(queue.settings.name);
      continue;
    }
    StatusPageWriter::Row row = status_row(dispatcher, queue);
    row.returns_until_ns = clock.real_ns(row.returns_until_ns);
    status_.set(queue.settings.name, row);
  }
  if (heartbeat_due_ns_ <= now_ns) {
    heartbeat_due_ns_ = now_ns + StatusPageWriter::kHeartbeatNs;
    status_.heartbeat(now_ns, clock.real_ns(now_ns));
  } else {
    status_.flush(now_ns);
  }
}

void Publisher::publish_metrics(const Sources& sources, int64_t now_ns) {
  metrics_due_ns_ = now_ns + kMetricsNs;
  Dispatcher& dispatcher = sources.dispatcher;
  Metrics& metrics = dispatcher.metrics();
  for (const Scheduler::Queue& queue : dispatcher.scheduler().queues()) {
    if (queue.retired && queue.waiting + queue.running == 0) {
      continue;
    }
    wire::QueueMetrics& of = metrics.of(queue.settings.name);
    of.oldest_wait_ms = static_cast<uint64_t>(Scheduler::oldest_wait_ns(queue, now_ns) / kNsPerMs);
    of.paused = queue.paused ? 1 : 0;
    if (const SharedQueue* const shared = dispatcher.shared(queue); shared != nullptr) {
      put_shared(of, *shared, dispatcher.shared()->durability());
    }
  }
  wire::MetricsPage& page = metrics.page();
  if (const Store* const store = dispatcher.store(); store != nullptr) {
    const Store::Figures figures = store->figures();
    page.dead_letters = figures.dead;
    page.state_bytes = figures.bytes;
    page.max_state_bytes = static_cast<uint64_t>(dispatcher.limits().max_state_bytes);
    page.state_broken = store->health() ? 0 : 1;
    page.write_errors = figures.write_errors;
    page.state_disk_bytes = figures.disk_bytes;
    page.unwritten_bytes = store->pending_bytes();
    page.lost_results = figures.lost_results;
    page.damaged_rows = figures.damaged_rows;
    page.commits = figures.commits;
    page.commit_ns = figures.commit_ns;
    page.ledger_rows = figures.usage_rows;
    page.ledger_waiting = dispatcher.usage().waiting();
  }
  const SharedTelling* const telling = sources.telling;
  for (const Webhooks* const webhooks :
       {sources.webhooks, telling == nullptr ? nullptr : &telling->webhooks()}) {
    if (webhooks != nullptr) {
      const Webhooks::Outcomes& outcomes = webhooks->outcomes();
      add(page.webhooks, {outcomes.delivered, outcomes.retried, outcomes.given_up,
                          outcomes.refused_target, outcomes.disabled});
      page.webhooks_pending += webhooks->pending();
    }
  }
  for (const Notices* const notices :
       {sources.notices, telling == nullptr ? nullptr : &telling->notices()}) {
    if (notices != nullptr) {
      const Notices::Outcomes& outcomes = notices->outcomes();
      add(page.notices, {outcomes.delivered, outcomes.retried, outcomes.given_up});
    }
  }
  put_workers(page, sources.supervisor);
  put_desired(page, sources.supervisor, sources.autoscaler);
  put_devices(page, sources.device_watch);
  metrics_.write(bytes_of(page));
}

}  // namespace penstock::queue
