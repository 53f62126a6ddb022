#include "ngx_module/pages/queue_metrics.h"

#include "ngx_module/pages/buckets_text.h"
#include "ngx_module/pages/serving_metrics.h"

namespace penstock {
namespace {

using metrics::Type;
using metrics::Writer;

constexpr std::string_view kEvents[wire::kJobEvents] = {
    "accepted", "promised",  "duplicate", "completed", "failed",
    "dead",     "cancelled", "expired",   "retried",   "earlier"};
constexpr std::string_view kWebhooks[] = {"delivered", "retried", "given_up", "refused_target",
                                          "disabled"};

// Visits each queue that has a name fit for a label.
template <class Visit>
void each_queue(const PoolArray<QueueCounts>& counts, const Visit& visit) noexcept {
  for (const QueueCounts& each : counts) {
    for (const wire::QueueMetrics& queue : each.page->queues) {
      const std::string_view name(queue.name, strnlen(queue.name, sizeof queue.name));
      if (is_name(name)) {
        visit(each.socket, name, queue);
      }
    }
  }
}

void write_events(Writer& writer, const PoolArray<QueueCounts>& counts) noexcept {
  constexpr std::string_view kName = "penstock_jobs_total";
  writer.family(kName, Type::counter, "Jobs by what befell them.");
  each_queue(counts, [&](std::string_view socket, std::string_view name, const auto& queue) {
    for (size_t i = 0; i < wire::kJobEvents; ++i) {
      writer.sample(SeriesText(kName, {{"socket", socket}, {"queue", name}, {"event", kEvents[i]}}),
                    queue.events[i]);
    }
  });
}

void write_waits(Writer& writer, const PoolArray<QueueCounts>& counts) noexcept {
  writer.family("penstock_wait_seconds", Type::histogram,
                "How long jobs waited until they started, by class.");
  each_queue(counts, [&](std::string_view socket, std::string_view name, const auto& queue) {
    for (const wire::ClassMetrics& each : queue.classes) {
      if (each.used != 0) {
        const Number priority(each.priority);
        write_buckets(writer, "penstock_wait_seconds_bucket", "penstock_wait_seconds_sum",
                      "penstock_wait_seconds_count",
                      {{"socket", socket}, {"queue", name}, {"priority", priority}}, each.wait);
      }
    }
  });
  writer.family("penstock_wait_prediction_error_ratio", Type::histogram,
                "How far predicted waits were off, over the longer of wait and service time.");
  each_queue(counts, [&](std::string_view socket, std::string_view name, const auto& queue) {
    write_buckets(writer, "penstock_wait_prediction_error_ratio_bucket",
                  "penstock_wait_prediction_error_ratio_sum",
                  "penstock_wait_prediction_error_ratio_count",
                  {{"socket", socket}, {"queue", name}}, queue.prediction_error);
  });
}

// Of queues where anybody was told.
void write_ranges(Writer& writer, const PoolArray<QueueCounts>& counts) noexcept {
  constexpr std::string_view kName = "penstock_prediction_inside_ratio";
  writer.family(kName, Type::gauge,
                "Of the last thousand jobs that waited, those that started between the times they "
                "were told (eta_range): 0.8 is right.");
  each_queue(counts, [&](std::string_view socket, std::string_view name, const auto& queue) {
    if (queue.ranges > 0) {
      writer.sample(SeriesText(kName, {{"socket", socket}, {"queue", name}}), queue.inside_ratio);
    }
  });
}

template <class Get>
void write_queues(Writer& writer, const PoolArray<QueueCounts>& counts, std::string_view name,
                  std::string_view help, const Get& get) noexcept {
  writer.family(name, Type::gauge, help);
  each_queue(counts, [&](std::string_view socket, std::string_view label, const auto& queue) {
    writer.sample(SeriesText(name, {{"socket", socket}, {"queue", label}}), get(queue));
  });
}

template <class Get>
void write_each(Writer& writer, const PoolArray<QueueCounts>& counts, std::string_view name,
                Type type, std::string_view help, const Get& get) noexcept {
  writer.family(name, type, help);
  for (const QueueCounts& each : counts) {
    writer.sample(SeriesText(name, {{"socket", each.socket}}), get(*each.page));
  }
}

// Of queues that hosts share: each host tells of the whole queue, as it was heard.
template <class Get>
void write_shared(Writer& writer, const PoolArray<QueueCounts>& counts, std::string_view name,
                  Type type, std::string_view help, const Get& get) noexcept {
  writer.family(name, type, help);
  each_queue(counts, [&](std::string_view socket, std::string_view label, const auto& queue) {
    if (queue.shared.used != 0) {
      writer.sample(SeriesText(name, {{"socket", socket}, {"queue", label}}), get(queue.shared));
    }
  });
}

void write_shared(Writer& writer, const PoolArray<QueueCounts>& counts) noexcept {
  using Shared = wire::SharedMetrics;
  const auto gauge = [&](std::string_view name, std::string_view help, const auto& get) {
    write_shared(writer, counts, name, Type::gauge, help, get);
  };
  const auto counter = [&](std::string_view name, std::string_view help, const auto& get) {
    write_shared(writer, counts, name, Type::counter, help, get);
  };
  gauge("penstock_shared_hosts", "Live hosts that share the queue.",
        [](const Shared& of) { return of.hosts; });
  constexpr std::string_view kJobs = "penstock_shared_jobs";
  writer.family(kJobs, Type::gauge, "Jobs of the queue in Redis, by state: of all hosts.");
  each_queue(counts, [&](std::string_view socket, std::string_view label, const auto& queue) {
    for (const auto& [state, jobs] : {std::pair{"waiting", queue.shared.waiting},
                                      {"scheduled", queue.shared.scheduled},
                                      {"running", queue.shared.running}}) {
      if (queue.shared.used != 0) {
        writer.sample(SeriesText(kJobs, {{"socket", socket}, {"queue", label}, {"state", state}}),
                      jobs);
      }
    }
  });
  gauge("penstock_shared_renewal_age_seconds",
        "Since this host's lease was renewed, or since it began to ask for one: at 7 it stops what "
        "it "
        "runs.",
        [](const Shared& of) { return static_cast<double>(of.renewal_age_ms) / 1e3; });
  counter("penstock_shared_requests_total", "Requests to Redis that were answered.",
          [](const Shared& of) { return of.requests; });
  counter("penstock_shared_request_seconds_total", "Time from sending them to their answers.",
          [](const Shared& of) { return static_cast<double>(of.request_ns) / 1e9; });
  gauge("penstock_shared_unsent_ends", "Ends of jobs that Redis does not have yet.",
        [](const Shared& of) { return of.unsent; });
  counter("penstock_shared_reaped_jobs_total",
          "Jobs of hosts that died which this one put back in line, or ended.",
          [](const Shared& of) { return of.reaped; });
  gauge("penstock_shared_subscription_lag_seconds",
        "From telling Redis to hearing of it on this host's channel.",
        [](const Shared& of) { return static_cast<double>(of.lag_us) / 1e6; });
  gauge("penstock_shared_promise_kept",
        "1: Redis has on its disk what a 202 says, or as many replicas as it takes have it; 0: it "
        "is less, or not known.",
        [](const Shared& of) { return of.promise_kept; });
  gauge("penstock_shared_acknowledged_replicas",
        "Replicas that have acknowledged the last promise; of promise: fsync none.",
        [](const Shared& of) { return of.acknowledged; });
  counter("penstock_shared_unacknowledged_total",
          "Times that fewer replicas acknowledged than a promise takes: nobody was told 202.",
          [](const Shared& of) { return of.unacknowledged; });
}

void write_store(Writer& writer, const PoolArray<QueueCounts>& counts) noexcept {
  write_each(writer, counts, "penstock_dead_letters", Type::gauge,
             "Jobs that failed every attempt, and are kept for the operator.",
             [](const auto& page) { return page.dead_letters; });
  write_each(writer, counts, "penstock_state_bytes", Type::gauge, "Jobs and results on disk.",
             [](const auto& page) { return page.state_bytes; });
  write_each(writer, counts, "penstock_state_max_bytes", Type::gauge,
             "What jobs and results may take on disk.",
             [](const auto& page) { return page.max_state_bytes; });
  write_each(writer, counts, "penstock_state_broken", Type::gauge,
             "1 while promises cannot be written, and are refused.",
             [](const auto& page) { return page.state_broken; });
  write_each(writer, counts, "penstock_state_write_errors_total", Type::counter,
             "Writes of jobs that failed.", [](const auto& page) { return page.write_errors; });
  write_each(writer, counts, "penstock_state_disk_bytes", Type::gauge,
             "What the files of jobs and results take on disk, free pages and the reserve as well.",
             [](const auto& page) { return page.state_disk_bytes; });
  write_each(writer, counts, "penstock_unwritten_bytes", Type::gauge,
             "Requests and results in memory, on their way to the disk.",
             [](const auto& page) { return page.unwritten_bytes; });
  write_each(writer, counts, "penstock_results_lost_total", Type::counter,
             "Results that could not be stored: their jobs failed.",
             [](const auto& page) { return page.lost_results; });
  write_each(writer, counts, "penstock_damaged_rows_total", Type::counter,
             "Promised jobs that could not be read from disk: they failed.",
             [](const auto& page) { return page.damaged_rows; });
  write_each(writer, counts, "penstock_commits_total", Type::counter,
             "Transactions of jobs, each flushed to disk.",
             [](const auto& page) { return page.commits; });
  write_each(writer, counts, "penstock_commit_seconds_total", Type::counter,
             "Time that they took, the flush included.",
             [](const auto& page) { return static_cast<double>(page.commit_ns) / 1e9; });
  write_each(writer, counts, "penstock_ledger_rows", Type::gauge,
             "Rows of the ledger: what an owner used of a queue and model in an hour.",
             [](const auto& page) { return page.ledger_rows; });
  write_each(writer, counts, "penstock_ledger_waiting", Type::gauge,
             "Ends that are counted, and are not in the ledger yet.",
             [](const auto& page) { return page.ledger_waiting; });
  constexpr std::string_view kName = "penstock_webhooks_total";
  writer.family(kName, Type::counter, "Tries to deliver webhooks, by what came of them.");
  for (const QueueCounts& each : counts) {
    for (size_t i = 0; i < std::size(kWebhooks); ++i) {
      writer.sample(SeriesText(kName, {{"socket", each.socket}, {"outcome", kWebhooks[i]}}),
                    each.page->webhooks[i]);
    }
  }
  write_each(writer, counts, "penstock_webhooks_pending", Type::gauge,
             "Webhooks that are still to be delivered.",
             [](const auto& page) { return page.webhooks_pending; });
}

void write_notices(Writer& writer, const PoolArray<QueueCounts>& counts) noexcept {
  constexpr std::string_view kName = "penstock_notices_total";
  writer.family(kName, Type::counter,
                "Tries to tell the operator's hooks (notify), by what came of them.");
  for (const QueueCounts& each : counts) {
    for (size_t i = 0; i < std::size(each.page->notices); ++i) {
      writer.sample(SeriesText(kName, {{"socket", each.socket}, {"outcome", kWebhooks[i]}}),
                    each.page->notices[i]);
    }
  }
}

}  // namespace

void write_queue_counts(Writer& writer, const PoolArray<QueueCounts>& counts) noexcept {
  write_each(writer, counts, "penstock_config_refused", Type::gauge,
             "1: something in the last reload of penstock.yaml could not be used; what was before "
             "is in force.",
             [](const auto& page) { return page.config_refused; });
  write_each(writer, counts, "penstock_unreadable_files", Type::gauge,
             "Files with secrets or certificates that penstock.yaml names and penstockd cannot "
             "read.",
             [](const auto& page) { return page.unreadable_files; });
  write_events(writer, counts);
  write_waits(writer, counts);
  write_ranges(writer, counts);
  write_queues(writer, counts, "penstock_queue_oldest_wait_seconds",
               "How long the job has waited that waits longest.",
               [](const auto& queue) { return static_cast<double>(queue.oldest_wait_ms) / 1000; });
  write_queues(writer, counts, "penstock_queue_paused", "1 while the operator has paused it.",
               [](const auto& queue) { return queue.paused; });
  write_shared(writer, counts);
  write_store(writer, counts);
  write_notices(writer, counts);
  write_serving(writer, counts);
  write_workers(writer, counts);
  write_devices(writer, counts);
}

}  // namespace penstock
