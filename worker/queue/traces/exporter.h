// SpanExporter: brings spans to a collector by OTLP/HTTP, in batches, one at a time.
//
// It never waits and never grows: kMostKept spans wait at most, and what is more is dropped. A
// batch that the collector does not take now (no answer, 429, 502, 503, 504: OTLP's own list of
// what may be tried again) is kept for kTries tries, each a while after the one before; one that it
// refuses is dropped. What was dropped is counted and said in the log, at most once a minute.
//
// Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "shared/base/event_loop.h"
#include "shared/base/job_id.h"
#include "worker/queue/config/traces_config.h"
#include "worker/queue/traces/span.h"
#include "worker/queue/webhooks/sender.h"

namespace penstock::queue {

class SpanExporter final : public EventLoop::Handler {
 public:
  static constexpr size_t kMostKept = 4096;
  static constexpr size_t kBatch = 256;
  static constexpr int64_t kEveryNs = 1'000'000'000;  // a batch that is not full
  static constexpr int kTries = 4;
  static constexpr int64_t kFirstRetryNs = 1'000'000'000;  // doubled each time

  // `instance`: which penstockd this is, among those that tell the same collector.
  SpanExporter(EventLoop& loop, std::string instance);
  ~SpanExporter() override;
  SpanExporter(const SpanExporter&) = delete;
  SpanExporter& operator=(const SpanExporter&) = delete;

  void apply(const TracesConfig& config);
  const TracesConfig& config() const { return config_; }
  void add(Span span);

  void advance_to(int64_t now_ns);
  int64_t next_event() const;
  uint64_t dropped() const { return dropped_; }
  uint64_t sent() const { return sent_; }
  // Whether all that was added was told of, or dropped.
  bool idle() const { return waiting_.empty() && batch_.empty(); }

 private:
  void on_events(uint32_t events) override;
  void send(int64_t now_ns);
  void drop(size_t spans, const std::string& why);

  EventLoop& loop_;
  std::string instance_;
  TracesConfig config_;
  std::unique_ptr<WebhookSender> sender_;  // nullptr: spans go nowhere
  JobIdMaker ids_;
  std::deque<Span> waiting_;
  std::vector<Span> batch_;  // that is being told, or told again
  bool under_way_ = false;
  int tries_ = 0;
  int64_t now_ns_ = 0;
  int64_t due_ns_ = INT64_MAX;  // of the next batch, or try
  uint64_t sent_ = 0;
  uint64_t dropped_ = 0;
  uint64_t untold_ = 0;  // of these, in the log
  std::string why_;
  int64_t told_ns_ = INT64_MIN / 2;
};

}  // namespace penstock::queue
