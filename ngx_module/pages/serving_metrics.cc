#include "ngx_module/pages/serving_metrics.h"

#include <algorithm>

#include "ngx_module/pages/buckets_text.h"
#include "shared/wire/device_messages.h"

namespace penstock {
namespace {

using metrics::Type;
using metrics::Writer;

// Text of the page, fit to be a label's value.
template <size_t kBytes>
class Label {
 public:
  explicit Label(const char (&text)[kBytes]) noexcept
      : end_(metrics::escape_label({text, strnlen(text, kBytes)}, text_)) {}
  operator std::string_view() const noexcept { return {text_, static_cast<size_t>(end_ - text_)}; }

 private:
  char text_[metrics::kLongestEscape * kBytes];
  const char* end_;
};

template <class Visit>
void each_model(const PoolArray<QueueCounts>& counts, const Visit& visit) noexcept {
  for (const QueueCounts& each : counts) {
    for (const wire::ServingMetrics& serving : each.page->serving) {
      if (serving.model[0] != '\0') {
        visit(each.socket, serving);
      }
    }
  }
}

enum class Of : uint8_t { kReady, kAll };  // the workers

template <class Visit>
void each_worker(const PoolArray<QueueCounts>& counts, Of which, const Visit& visit) noexcept {
  for (const QueueCounts& each : counts) {
    const uint64_t used = std::min<uint64_t>(each.page->workers_used, wire::kMaxWorkers);
    for (uint64_t i = 0; i < used; ++i) {
      if (which == Of::kAll || each.page->workers[i].ready != 0) {
        visit(each.socket, each.page->workers[i]);
      }
    }
  }
}

// One family; `get` tells of a worker what is sampled.
template <class Get>
void write_family(Writer& writer, const PoolArray<QueueCounts>& counts, std::string_view name,
                  Type type, std::string_view help, const Get& get,
                  Of which = Of::kReady) noexcept {
  writer.family(name, type, help);
  each_worker(counts, which, [&](std::string_view socket, const wire::WorkerMetrics& worker) {
    writer.sample(SeriesText(name, {{"socket", socket},
                                    {"worker", Label(worker.name)},
                                    {"queue", Label(worker.queue)},
                                    {"model_name", Label(worker.model)}}),
                  get(worker));
  });
}

// The same of devices: those that have the figure.
template <class Get>
void write_family(Writer& writer, const PoolArray<QueueCounts>& counts, std::string_view name,
                  std::string_view help, uint64_t figure, const Get& get) noexcept {
  writer.family(name, Type::gauge, help);
  for (const QueueCounts& each : counts) {
    const uint64_t used = std::min<uint64_t>(each.page->devices_used, wire::kMaxDevices);
    for (uint64_t i = 0; i < used; ++i) {
      const wire::DeviceMetrics& device = each.page->devices[i];
      if ((device.known & figure) == figure) {
        writer.sample(SeriesText(name, {{"socket", each.socket},
                                        {"device", Label(device.label)},
                                        {"uuid", Label(device.uuid)},
                                        {"name", Label(device.name)}}),
                      get(device));
      }
    }
  }
}

}  // namespace

void write_serving(Writer& writer, const PoolArray<QueueCounts>& counts) noexcept {
  writer.family("penstock_time_to_first_token_seconds", Type::histogram,
                "From the arrival of a job whose answer streams to the beginning of its answer.");
  each_model(counts, [&](std::string_view socket, const wire::ServingMetrics& serving) {
    write_buckets(
        writer, "penstock_time_to_first_token_seconds_bucket",
        "penstock_time_to_first_token_seconds_sum", "penstock_time_to_first_token_seconds_count",
        {{"socket", socket}, {"queue", Label(serving.queue)}, {"model_name", Label(serving.model)}},
        serving.first_token);
  });
  writer.family("penstock_time_per_output_token_seconds", Type::histogram,
                "Of an answer that streams: how long each token took after the first, on average.");
  each_model(counts, [&](std::string_view socket, const wire::ServingMetrics& serving) {
    write_buckets(
        writer, "penstock_time_per_output_token_seconds_bucket",
        "penstock_time_per_output_token_seconds_sum",
        "penstock_time_per_output_token_seconds_count",
        {{"socket", socket}, {"queue", Label(serving.queue)}, {"model_name", Label(serving.model)}},
        serving.per_token);
  });
}

void write_workers(Writer& writer, const PoolArray<QueueCounts>& counts) noexcept {
  using Worker = wire::WorkerMetrics;
  write_family(
      writer, counts, "penstock_worker_ready", Type::gauge, "Whether the worker process is ready.",
      [](const Worker& worker) { return worker.ready; }, Of::kAll);
  write_family(
      writer, counts, "penstock_worker_restarts_total", Type::counter,
      "Times that the worker process ended without being told to.",
      [](const Worker& worker) { return worker.restarts; }, Of::kAll);
  write_family(writer, counts, "penstock_slots", Type::gauge,
               "Jobs that the worker process can run at once.",
               [](const Worker& worker) { return worker.slots; });
  write_family(writer, counts, "penstock_num_requests_running", Type::gauge, "Jobs that run on it.",
               [](const Worker& worker) { return worker.running; });
  write_family(writer, counts, "penstock_num_requests_waiting", Type::gauge,
               "Jobs that it was given, and that wait there for memory.",
               [](const Worker& worker) { return worker.waiting; });
  write_family(writer, counts, "penstock_job_memory_bytes", Type::gauge,
               "What its jobs may hold on the device.",
               [](const Worker& worker) { return worker.memory_bytes; });
  write_family(writer, counts, "penstock_kv_cache_usage_perc", Type::gauge,
               "How full its key-value cache is: 1 is full.", [](const Worker& worker) {
                 return worker.kv_blocks == 0 ? 0
                                              : static_cast<double>(worker.kv_blocks_used) /
                                                    static_cast<double>(worker.kv_blocks);
               });
  write_family(writer, counts, "penstock_prompt_tokens_total", Type::counter,
               "Tokens of prompts that it has read.",
               [](const Worker& worker) { return worker.prompt_tokens; });
  write_family(writer, counts, "penstock_generation_tokens_total", Type::counter,
               "Tokens that it has drawn.",
               [](const Worker& worker) { return worker.generation_tokens; });
  constexpr std::string_view kDesired = "penstock_desired_workers";
  writer.family(kDesired, Type::gauge,
                "Processes that the worker should have for the waits of its callers, for whoever "
                "starts them.");
  for (const QueueCounts& each : counts) {
    const uint64_t used = std::min<uint64_t>(each.page->desired_used, wire::kMaxWorkers);
    for (uint64_t i = 0; i < used; ++i) {
      const wire::DesiredMetrics& desired = each.page->desired[i];
      writer.sample(SeriesText(kDesired, {{"socket", each.socket},
                                          {"worker", Label(desired.worker)},
                                          {"queue", Label(desired.queue)},
                                          {"model_name", Label(desired.model)}}),
                    desired.processes);
    }
  }
  constexpr std::string_view kBatch = "penstock_batch_size";
  writer.family(kBatch, Type::summary, "Jobs in each step of its engine.");
  each_worker(counts, Of::kReady, [&](std::string_view socket, const Worker& worker) {
    const Label name(worker.name);
    const Label queue(worker.queue);
    const Label model(worker.model);
    const auto sample = [&](std::string_view series, uint64_t value) {
      writer.sample(
          SeriesText(
              series,
              {{"socket", socket}, {"worker", name}, {"queue", queue}, {"model_name", model}}),
          value);
    };
    sample("penstock_batch_size_sum", worker.step_jobs);
    sample("penstock_batch_size_count", worker.steps);
  });
}

void write_devices(Writer& writer, const PoolArray<QueueCounts>& counts) noexcept {
  using Device = wire::DeviceMetrics;
  constexpr std::string_view kWatched = "penstock_devices_watched";
  writer.family(kWatched, Type::gauge,
                "1 while the devices are looked at; 0: there is no driver, or it does not answer.");
  for (const QueueCounts& each : counts) {
    if (each.page->devices_wanted != 0) {
      writer.sample(SeriesText(kWatched, {{"socket", each.socket}}), each.page->devices_watched);
    }
  }
  write_family(writer, counts, "penstock_device_healthy",
               "Whether the device may be used; its health as it was last seen.", 0,
               [](const Device& device) { return device.healthy; });
  write_family(
      writer, counts, "penstock_device_utilization_ratio",
      "Part of the last moments in which the device worked.", wire::kUtilizationKnown,
      [](const Device& device) { return static_cast<double>(device.utilization_percent) / 100; });
  write_family(writer, counts, "penstock_device_memory_used_bytes", "Memory in use, by anybody.",
               wire::kMemoryKnown, [](const Device& device) { return device.memory_used_bytes; });
  write_family(writer, counts, "penstock_device_memory_total_bytes", "Memory of the device.",
               wire::kMemoryKnown, [](const Device& device) { return device.memory_total_bytes; });
  write_family(writer, counts, "penstock_device_temperature_celsius", "Temperature of its chip.",
               wire::kTemperatureKnown,
               [](const Device& device) { return device.temperature_celsius; });
  write_family(writer, counts, "penstock_device_power_watts", "Power that it draws.",
               wire::kPowerKnown,
               [](const Device& device) { return static_cast<double>(device.power_mw) / 1000; });
}

}  // namespace penstock
