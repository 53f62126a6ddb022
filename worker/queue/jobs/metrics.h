// Metrics: what penstockd counts, by queue and by model, on the page that is published.
#pragma once

#include <array>
#include <bitset>
#include <memory>
#include <string_view>

#include "shared/wire/metrics_page.h"

namespace penstock::queue {

class Metrics {
 public:
  using Event = wire::JobEvent;

  // The queue's numbers; found once, they stay where they are. Queues past wire::kMaxQueues get the
  // place of one that was retired, or share the last.
  wire::QueueMetrics& of(std::string_view queue);
  // The queue is not counted any more, unless it is found again.
  void retire(std::string_view queue);
  // The numbers of a model in a queue, which stay where they are, too. Models beyond
  // wire::kMaxModels share the last place, which is called "other".
  wire::ServingMetrics& serving(std::string_view queue, std::string_view model);
  wire::MetricsPage& page() { return *page_; }
  // Over all queues.
  uint64_t total(Event event) const;

  static void count(wire::QueueMetrics& queue, Event event) {
    ++queue.events[static_cast<size_t>(event)];
  }
  // A job of this class started. Times in ns; `service_ns` 0: none is known, nor was the wait.
  static void started(wire::QueueMetrics& queue, int64_t priority, int64_t waited_ns,
                      int64_t predicted_ns, double service_ns);
  // One started elsewhere, of which that was predicted.
  static void foretold(wire::QueueMetrics& queue, int64_t waited_ns, int64_t predicted_ns,
                       double service_ns);
  // A job started, within the range that it was told or not.
  static void came_true(wire::QueueMetrics& queue, bool inside);

 private:
  std::unique_ptr<wire::MetricsPage> page_ = std::make_unique<wire::MetricsPage>();
  std::bitset<wire::kMaxQueues> retired_;
  std::array<uint64_t, wire::kJobEvents> gone_{};  // of queues whose place another has
};

}  // namespace penstock::queue
