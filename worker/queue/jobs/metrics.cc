#include "worker/queue/jobs/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "shared/base/clock.h"

namespace penstock::queue {
namespace {

double seconds(int64_t ns) { return static_cast<double>(ns) / kNsPerSec; }

wire::ClassMetrics& class_of(wire::QueueMetrics& queue, int64_t priority) {
  for (wire::ClassMetrics& each : queue.classes) {
    if (each.used == 0) {
      each.used = 1;
      each.priority = priority;
    }
    if (each.priority == priority) {
      return each;
    }
  }
  return queue.classes[wire::kMaxClasses - 1];
}

}  // namespace

wire::QueueMetrics& Metrics::of(std::string_view queue) {
  for (size_t i = 0; i < wire::kMaxQueues; ++i) {
    wire::QueueMetrics& each = page_->queues[i];
    if (each.name[0] == '\0') {
      wire::copy_text(each.name, queue);
      ++page_->queues_used;
    }
    if (queue == each.name) {
      retired_.reset(i);
      return each;
    }
  }
  for (size_t i = 0; i < wire::kMaxQueues; ++i) {
    if (retired_[i]) {
      wire::QueueMetrics& each = page_->queues[i];
      for (size_t event = 0; event < gone_.size(); ++event) {
        gone_[event] += each.events[event];
      }
      each = {};
      wire::copy_text(each.name, queue);
      retired_.reset(i);
      return each;
    }
  }
  return page_->queues[wire::kMaxQueues - 1];
}

void Metrics::retire(std::string_view queue) {
  for (size_t i = 0; i < wire::kMaxQueues; ++i) {
    if (queue == page_->queues[i].name) {
      retired_.set(i);
    }
  }
}

wire::ServingMetrics& Metrics::serving(std::string_view queue, std::string_view model) {
  wire::ServingMetrics& last = page_->serving[wire::kMaxModels - 1];
  for (wire::ServingMetrics& each : page_->serving) {
    if (each.model[0] == '\0' && &each != &last) {
      wire::copy_text(each.queue, queue);
      wire::copy_text(each.model, model);
    }
    if (queue == each.queue && model == each.model) {
      return each;
    }
  }
  wire::copy_text(last.queue, "other");
  wire::copy_text(last.model, "other");
  return last;
}

uint64_t Metrics::total(Event event) const {
  uint64_t sum = gone_[static_cast<size_t>(event)];
  for (const wire::QueueMetrics& each : page_->queues) {
    sum += each.events[static_cast<size_t>(event)];
  }
  return sum;
}

void Metrics::started(wire::QueueMetrics& queue, int64_t priority, int64_t waited_ns,
                      int64_t predicted_ns, double service_ns) {
  class_of(queue, priority).wait.observe(seconds(waited_ns));
  foretold(queue, waited_ns, predicted_ns, service_ns);
}

void Metrics::foretold(wire::QueueMetrics& queue, int64_t waited_ns, int64_t predicted_ns,
                       double service_ns) {
  if (service_ns > 0 && predicted_ns >= 0) {
    const double least = std::max(static_cast<double>(waited_ns), service_ns);
    queue.prediction_error.observe(std::abs(static_cast<double>(predicted_ns - waited_ns)) / least);
  }
}

void Metrics::came_true(wire::QueueMetrics& queue, bool inside) {
  constexpr double kWindow = 1000;  // of jobs, the last; until then all
  ++queue.ranges;
  queue.inside_ratio += ((inside ? 1.0 : 0.0) - queue.inside_ratio) /
                        std::min(static_cast<double>(queue.ranges), kWindow);
}

}  // namespace penstock::queue
