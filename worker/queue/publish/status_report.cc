#include "worker/queue/publish/status_report.h"

#include <unistd.h>

#include <algorithm>

#include "shared/base/version.h"
#include "worker/queue/text/json.h"

namespace penstock::queue {
namespace {

const char* name_of(wire::QueueState state) {
  switch (state) {
    case wire::QueueState::kOpen:
      return "open";
    case wire::QueueState::kFull:
      return "full";
    case wire::QueueState::kNoWorker:
      return "no worker";
    case wire::QueueState::kDraining:
      return "draining";
    case wire::QueueState::kCannotLoad:
      return "cannot load";
    case wire::QueueState::kAway:
      return "no Redis";
    case wire::QueueState::kUnused:
      break;
  }
  return "unknown";
}

std::string describe(Dispatcher& dispatcher, Scheduler::Queue& queue) {
  const StatusPageWriter::Row row = status_of_all_hosts(dispatcher, queue);
  return JsonObject()
      .text("name", queue.settings.name)
      .text("state", name_of(row.state))
      .boolean("paused", queue.paused)
      .boolean("shared", dispatcher.shared(queue) != nullptr)
      .number("waiting", row.length)
      .number("running", row.running)
      .number("slots", row.slots)
      .number("max_length", queue.settings.max_length)
      .number("owners", static_cast<int64_t>(queue.owners()))
      .raw("predicted_wait_ms", row.predicted_wait_ms == wire::kNoPredictedWait
                                    ? "null"
                                    : std::to_string(row.predicted_wait_ms))
      .number("service_time_us",
              static_cast<int64_t>(queue.any_model().service.mean_ns() / kNsPerUs))
      .done();
}

void describe_engine(JsonObject& object, const wire::Heartbeat& said) {
  object.number("waiting", static_cast<int64_t>(said.waiting))
      .number("steps", static_cast<int64_t>(said.steps))
      .number("step_jobs", static_cast<int64_t>(said.step_jobs))
      .number("prompt_tokens", static_cast<int64_t>(said.prompt_tokens))
      .number("generation_tokens", static_cast<int64_t>(said.generation_tokens))
      .number("kv_blocks", static_cast<int64_t>(said.kv_blocks))
      .number("kv_blocks_used", static_cast<int64_t>(said.kv_blocks_used))
      .number("step_ms", static_cast<int64_t>(said.step_ms))
      .number("server_running", static_cast<int64_t>(said.server_running))
      .number("server_waiting", static_cast<int64_t>(said.server_waiting))
      .number("context_tokens", static_cast<int64_t>(said.context_tokens));
}

// What is behind a worker allows, and what was used of it.
std::string describe(const Pace& pace, int64_t now_ns) {
  JsonList limits;
  for (size_t i = 0; i < pace.limits().size(); ++i) {
    const PaceLimit& limit = pace.limits()[i];
    JsonObject each;
    each.text("unit", limit.unit == PaceLimit::Unit::kRequests ? "requests" : "tokens")
        .number("amount", static_cast<int64_t>(limit.amount))
        .number("used", static_cast<int64_t>(pace.used(i, now_ns)))
        .boolean("calendar", limit.calendar.has_value())
        .number("seconds",
                (limit.calendar ? limit::span_ns(*limit.calendar) : limit.length_ns) / kNsPerSec);
    limits.add(each.done());
  }
  return JsonObject()
      .raw("limits", limits.done())
      .number("running", pace.running())
      .number("concurrency", pace.at_once())
      .done();
}

std::string describe(const Supervisor& supervisor, const Supervisor::Worker& worker) {
  const WorkerSession* const session = worker.session.get();
  JsonObject object;
  object.text("name", worker.config.name)
      .text("state", Supervisor::name_of(worker.state))
      .text("queue", worker.config.queue)
      .text("engine", worker.config.engine)
      .text("model", worker.config.model_name)
      .text("device", worker.config.device)
      .number("pid", worker.child.pid())
      .number("running", session != nullptr ? static_cast<int64_t>(session->running()) : 0)
      .number("slots", worker.config.slots)
      .number("memory_bytes",
              session != nullptr ? static_cast<int64_t>(session->memory_bytes()) : 0)
      .number("restarts", static_cast<int64_t>(worker.restarts));
  describe_engine(object, session != nullptr ? session->heartbeat() : wire::Heartbeat{});
  object.raw("pace", session == nullptr || session->pace() == nullptr
                         ? "null"
                         : describe(*session->pace(), supervisor.now_ns()));
  const bool chats = session != nullptr && !session->chat().empty();
  object.raw("chat", chats ? json_string(session->chat()) : "null");
  if (session != nullptr && session->said_hello() && session->open_slots() < session->slots()) {
    object.number("open_slots", session->open_slots()).text("why_closed", session->why_closed());
  } else {
    object.raw("open_slots", "null").raw("why_closed", "null");
  }
  using State = Supervisor::Worker::State;
  if (worker.ready_ns > 0 && (worker.state == State::kReady || worker.state == State::kDraining)) {
    object.number("ready_seconds", (supervisor.now_ns() - worker.ready_ns) / kNsPerSec);
  } else {
    object.raw("ready_seconds", "null");
  }
  const std::string waits_for = supervisor.waits_for(worker);
  return object.text_or_null("waits_for", waits_for)
      .text_or_null("last_error", worker.last_error)
      .done();
}

std::string describe(const std::string& worker, const Budget& share) {
  JsonObject object;
  object.text("worker", worker)
      .number("busy", share.busy)
      .number("slots", share.usual())
      .number("max_slots", share.slots)
      .number("held_bytes", share.held_bytes)
      .number("memory_bytes", share.memory_bytes);
  return share.adaptive ? object.text("why", share.adaptive->say()).done()
                        : object.raw("why", "null").done();
}

std::string describe(const Device& device) {
  JsonList workers;
  for (const auto& [worker, share] : device.shares) {
    workers.add(describe(worker, share));
  }
  JsonObject object;
  object.text("device", device.id)
      .text("state", !device.out              ? "good"
                     : device.checker.lives() ? "checking"
                                              : "out")
      .number("busy", device.budget.busy)
      .number("slots", device.budget.slots)
      .number("held_bytes", device.budget.held_bytes)
      .number("memory_bytes", device.budget.memory_bytes)
      .number("waiting_for_memory", static_cast<int64_t>(device.claims.waiting()))
      .raw("workers", workers.done());
  return device.fault.empty() ? object.raw("last_fault", "null").done()
                              : object.text("last_fault", device.fault).done();
}

// One that was drained, or scaled to 0.
std::string describe_stopped(const WorkerConfig& worker) {
  JsonObject object;
  object.text("name", worker.name)
      .text("state", "stopped")
      .text("queue", worker.queue)
      .text("engine", worker.engine)
      .text("model", worker.model_name)
      .text("device", "")
      .number("pid", 0)
      .number("running", 0)
      .number("slots", 0)
      .number("memory_bytes", 0)
      .number("restarts", 0)
      .raw("chat", "null")
      .raw("open_slots", "null")
      .raw("why_closed", "null")
      .raw("ready_seconds", "null")
      .raw("pace", "null")
      .raw("last_error", "null");
  describe_engine(object, {});
  return object.done();
}

// Figures that the device does not have, or that nobody reads now, are null.
std::string describe(const DeviceState& device) {
  JsonObject object;
  object.text("device", device.label())
      .text("uuid", device.uuid)
      .text("name", device.name)
      .raw("parent", device.parent ? json_string(std::to_string(*device.parent)) : "null")
      .raw("healthy", device.healthy() ? "true" : "false")
      .text("health", queue::name_of(device.health))
      .raw("message", device.message.empty() ? "null" : json_string(device.message));
  const auto figure = [&](const char* name, wire::DeviceFigure known, uint64_t value) {
    object.raw(name, (device.known & known) != 0 ? std::to_string(value) : "null");
  };
  figure("utilization_percent", wire::kUtilizationKnown, device.utilization_percent);
  figure("memory_used_bytes", wire::kMemoryKnown, device.memory_used_bytes);
  figure("memory_total_bytes", wire::kMemoryKnown, device.memory_total_bytes);
  figure("temperature_celsius", wire::kTemperatureKnown, device.temperature_celsius);
  figure("power_mw", wire::kPowerKnown, device.power_mw);
  return object.done();
}

std::string describe(const DeviceWatch& watch) {
  return JsonObject()
      .text("state", !watch.wanted()    ? "off"
                     : watch.watching() ? "watching"
                                        : "none")
      .text_or_null("message", watch.trouble())
      .done();
}

std::string describe(const StatusSources& sources) {
  using Event = Metrics::Event;
  const Metrics& metrics = sources.dispatcher.metrics();
  JsonObject object;
  for (const auto& [name, event] : {std::pair{"accepted", Event::kAccepted},
                                    {"promised", Event::kPromised},
                                    {"duplicates", Event::kDuplicate},
                                    {"completed", Event::kCompleted},
                                    {"failed", Event::kFailed},
                                    {"dead", Event::kDead},
                                    {"cancelled", Event::kCancelled},
                                    {"expired", Event::kExpired},
                                    {"requeued", Event::kRetried},
                                    {"earlier", Event::kEarlier}}) {
    object.number(name, static_cast<int64_t>(metrics.total(event)));
  }
  uint64_t prompt_tokens = 0;
  uint64_t generation_tokens = 0;
  for (const auto& worker : sources.supervisor.workers()) {
    if (worker->session != nullptr) {
      prompt_tokens += worker->session->heartbeat().prompt_tokens;
      generation_tokens += worker->session->heartbeat().generation_tokens;
    }
  }
  object.number("prompt_tokens", static_cast<int64_t>(prompt_tokens))
      .number("generation_tokens", static_cast<int64_t>(generation_tokens));
  return object.number("refused", static_cast<int64_t>(sources.dispatcher.refused()))
      .number("protocol_errors", static_cast<int64_t>(sources.protocol_errors))
      .done();
}

std::string describe(const EdgeVersions& edges) {
  JsonList list;
  for (const EdgeVersions::Kind& each : edges.kinds()) {
    list.add(JsonObject()
                 .text_or_null("version", each.version)
                 .number("protocol", static_cast<int64_t>(std::min<uint64_t>(
                                         each.protocol, static_cast<uint64_t>(INT64_MAX))))
                 .boolean("refused", each.refused)
                 .number("pid", each.pid)
                 .done());
  }
  return list.done();
}

std::string describe(const Store& store, const LimitsConfig& limits) {
  const Store::Figures figures = store.figures();
  const Status health = store.health();
  JsonObject object;
  object.number("dead_letters", static_cast<int64_t>(figures.dead))
      .number("bytes", static_cast<int64_t>(figures.bytes))
      .number("max_bytes", limits.max_state_bytes);
  return health ? object.raw("error", "null").done()
                : object.text("error", health.error().message).done();
}

}  // namespace

StatusPageWriter::Row status_row(Dispatcher& dispatcher, Scheduler::Queue& queue) {
  const Scheduler::Lane& any = queue.any_model();
  const Dispatcher::Availability now = dispatcher.availability(any);
  StatusPageWriter::Row row;
  row.state = now.state;
  row.retry_after_s = static_cast<uint64_t>(now.retry_after_s);
  const SharedQueue* const shared = dispatcher.shared(queue);
  row.length =
      shared != nullptr ? static_cast<uint32_t>(shared->roster().waiting()) : queue.waiting;
  row.running = queue.running;
  row.slots = dispatcher.slots(queue);
  row.returns_until_ns = dispatcher.returns_until_ns(queue);
  if (row.state == wire::QueueState::kFull) {
    row.drain_step_us =
        static_cast<uint64_t>(any.service.mean_ns() / kNsPerUs) / std::max(1U, row.slots);
  }
  row.predicted_wait_ms =
      queue.paused ? wire::kNoPredictedWait
                   : static_cast<uint64_t>(dispatcher.wait_for_newcomer_ns(queue) / kNsPerMs);
  return row;
}

StatusPageWriter::Row status_of_all_hosts(Dispatcher& dispatcher, Scheduler::Queue& queue) {
  StatusPageWriter::Row row = status_row(dispatcher, queue);
  if (const SharedQueue* const shared = dispatcher.shared(queue); shared != nullptr) {
    row.running = static_cast<uint32_t>(shared->roster().running());
    row.slots = shared->roster().workers({}).slots;
  }
  return row;
}

std::string report_status(const StatusSources& sources) {
  const Store* const store = sources.dispatcher.store();
  JsonList queues;
  for (Scheduler::Queue& queue : sources.dispatcher.scheduler().queues()) {
    if (!queue.retired || queue.waiting + queue.running > 0) {
      queues.add(describe(sources.dispatcher, queue));
    }
  }
  JsonList devices;
  for (const DeviceState& device : sources.device_watch.devices()) {
    devices.add(describe(device));
  }
  JsonList workers;
  for (const auto& worker : sources.supervisor.workers()) {
    workers.add(describe(sources.supervisor, *worker));
  }
  JsonList bounds;
  for (const auto& [id, device] : sources.supervisor.devices().all()) {
    bounds.add(describe(device));
  }
  for (const WorkerConfig& worker : sources.config.workers) {
    const auto& processes = sources.supervisor.workers();
    if (std::none_of(processes.begin(), processes.end(), [&](const auto& each) {
          return Scaling::worker_of(each->config.name) == worker.name;
        })) {
      workers.add(describe_stopped(worker));
    }
  }
  return JsonObject()
      .text("status", sources.dispatcher.draining() ? "draining" : "serving")
      .text("version", version())
      .number("pid", ::getpid())
      .number("uptime_seconds", sources.uptime_s)
      .number("connections", static_cast<int64_t>(sources.connections))
      .number("held_bytes", sources.dispatcher.frame_bytes())
      .raw("queues", queues.done())
      .raw("workers", workers.done())
      .raw("devices", devices.done())
      .raw("bounds", bounds.done())
      .raw("device_watch", describe(sources.device_watch))
      .raw("counters", describe(sources))
      .raw("protocol", JsonObject()
                           .number("first", wire::kVersion)
                           .number("newest", wire::kNewestVersion)
                           .done())
      .raw("edges", describe(sources.edges))
      .raw("state", store == nullptr ? "null" : describe(*store, sources.config.limits))
      .done();
}

}  // namespace penstock::queue
