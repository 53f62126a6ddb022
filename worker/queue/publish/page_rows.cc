#include "worker/queue/publish/page_rows.h"

namespace penstock::queue {
namespace {

bool is_ready(const Supervisor::Worker& worker) {
  return worker.session != nullptr && worker.session->ready();
}

void put(wire::WorkerMetrics& row, const Supervisor::Worker& worker) {
  row = {};
  wire::copy_text(row.name, worker.config.name);
  wire::copy_text(row.queue, worker.config.queue);
  wire::copy_text(row.model, worker.config.model_name);
  row.restarts = worker.restarts;
  if (!is_ready(worker)) {
    return;
  }
  const wire::Heartbeat& said = worker.session->heartbeat();
  row.ready = 1;
  row.slots = std::min(worker.session->slots(), worker.seat->budget().usual());
  row.running = said.running;
  row.waiting = said.waiting;
  row.memory_bytes = said.memory_bytes;
  row.steps = said.steps;
  row.step_jobs = said.step_jobs;
  row.prompt_tokens = said.prompt_tokens;
  row.generation_tokens = said.generation_tokens;
  row.kv_blocks = said.kv_blocks;
  row.kv_blocks_used = said.kv_blocks_used;
}

void put(wire::DeviceMetrics& row, const DeviceState& device) {
  wire::copy_text(row.label, device.label());
  wire::copy_text(row.uuid, device.uuid);
  wire::copy_text(row.name, device.name);
  row.known = device.known;
  row.utilization_percent = device.utilization_percent;
  row.memory_used_bytes = device.memory_used_bytes;
  row.memory_total_bytes = device.memory_total_bytes;
  row.temperature_celsius = device.temperature_celsius;
  row.power_mw = device.power_mw;
  row.healthy = device.healthy() ? 1 : 0;
}

}  // namespace

void put_workers(wire::MetricsPage& page, const Supervisor& supervisor) {
  page.workers_used = 0;
  for (const auto& worker : supervisor.workers()) {
    const bool awaited = !worker->retired || worker->next;
    if (page.workers_used < wire::kMaxWorkers && (awaited || is_ready(*worker))) {
      put(page.workers[page.workers_used++], *worker);
    }
  }
}

void put_desired(wire::MetricsPage& page, const Supervisor& supervisor,
                 const Autoscaler& autoscaler) {
  page.desired_used = 0;
  for (const WorkerConfig& worker : supervisor.configured()) {
    const auto found = autoscaler.desired().find(worker.name);
    if (found != autoscaler.desired().end() && page.desired_used < wire::kMaxWorkers) {
      wire::DesiredMetrics& row = page.desired[page.desired_used++];
      wire::copy_text(row.worker, worker.name);
      wire::copy_text(row.queue, worker.queue);
      wire::copy_text(row.model, worker.model_name);
      row.processes = found->second;
    }
  }
}

void put_shared(wire::QueueMetrics& row, const SharedQueue& queue, const Durability& durability) {
  const Roster& roster = queue.roster();
  const int64_t now_ns = monotonic_ns();
  const int64_t since_ns = queue.membership().silent_since_ns();
  row.oldest_wait_ms = static_cast<uint64_t>(roster.oldest_ns() / kNsPerMs);
  row.shared = {
      .used = 1,
      .hosts = roster.hosts().size(),
      .waiting = roster.in_line(),
      .scheduled = roster.later(),
      .running = roster.running(),
      .renewal_age_ms = since_ns == 0 ? 0 : static_cast<uint64_t>((now_ns - since_ns) / kNsPerMs),
      .requests = queue.calls().answered,
      .request_ns = static_cast<uint64_t>(queue.calls().ns),
      .unsent = queue.unsent(),
      .reaped = queue.membership().reaped(),
      .lag_us = static_cast<uint64_t>(roster.lag_ns(now_ns) / kNsPerUs),
      .promise_kept = durability.is_kept() ? uint64_t{1} : 0};
  if (const PromiseLine* const line = queue.promise_line(); line != nullptr) {
    const PromiseLine::Acknowledged& all = line->acknowledged();
    row.shared.acknowledged = static_cast<uint64_t>(all.replicas);
    row.shared.promise_kept = all.at_ns != 0 && all.replicas >= line->replicas() ? 1 : 0;
    row.shared.unacknowledged = all.failed;
  }
}

void put_devices(wire::MetricsPage& page, const DeviceWatch& watch) {
  page.devices_wanted = watch.wanted() ? 1 : 0;
  page.devices_watched = watch.watching() ? 1 : 0;
  page.devices_used = std::min(watch.devices().size(), wire::kMaxDevices);
  for (size_t i = 0; i < page.devices_used; ++i) {
    put(page.devices[i], watch.devices()[i]);
  }
}

}  // namespace penstock::queue
