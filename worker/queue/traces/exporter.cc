#include "worker/queue/traces/exporter.h"

#include <algorithm>
#include <utility>

#include "shared/base/clock.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

constexpr int64_t kTellEveryNs = 60 * kNsPerSec;
constexpr long kPatienceMs = 10'000;

bool may_be_tried_again(int status) {
  return status == 0 || status == 429 || status == 502 || status == 503 || status == 504;
}

// The operator chose the URL.
std::shared_ptr<const WebhookTargets> anywhere() {
  return std::make_shared<WebhookTargets>(*WebhookTargets::create({"0.0.0.0/0", "::/0"}));
}

}  // namespace

SpanExporter::SpanExporter(EventLoop& loop, std::string instance)
    : loop_(loop), instance_(std::move(instance)) {}

SpanExporter::~SpanExporter() { apply({}); }

void SpanExporter::apply(const TracesConfig& config) {
  const bool was_on = config_.on();
  config_ = config;
  if (config_.on() && !was_on) {
    sender_ = std::make_unique<WebhookSender>(
        WebhookSender::Patience{.connect_ms = kPatienceMs, .total_ms = kPatienceMs});
    if (Status added = loop_.add(sender_->event_fd(), EPOLLIN, this); !added) {
      log(Level::kError, "traces: " + added.error().message);
    }
  } else if (!config_.on() && was_on) {
    loop_.remove(sender_->event_fd(), this);
    sender_.reset();
    waiting_.clear();
    batch_.clear();
    under_way_ = false;
    due_ns_ = INT64_MAX;
  }
}

void SpanExporter::add(Span span) {
  if (!config_.on()) {
    return;
  }
  if (waiting_.size() == kMostKept) {
    return drop(1, "the collector takes them too slowly");
  }
  waiting_.push_back(std::move(span));
  if (!under_way_ && batch_.empty()) {
    due_ns_ = std::min(due_ns_, now_ns_ + (waiting_.size() >= kBatch ? 0 : kEveryNs));
  }
}

void SpanExporter::advance_to(int64_t now_ns) {
  now_ns_ = now_ns;
  if (due_ns_ <= now_ns && !under_way_) {
    send(now_ns);
  }
  if (untold_ > 0 && now_ns - told_ns_ >= kTellEveryNs) {
    told_ns_ = now_ns;
    log(Level::kWarn, "traces: spans were dropped: " + why_,
        {{"dropped", static_cast<int64_t>(std::exchange(untold_, 0))}});
  }
}

int64_t SpanExporter::next_event() const {
  const int64_t tell_ns = untold_ > 0 ? told_ns_ + kTellEveryNs : INT64_MAX;
  return std::min(under_way_ ? INT64_MAX : due_ns_, tell_ns);
}

void SpanExporter::send(int64_t now_ns) {
  due_ns_ = INT64_MAX;
  if (batch_.empty()) {
    tries_ = 0;
    const auto end = waiting_.begin() + static_cast<ptrdiff_t>(std::min(kBatch, waiting_.size()));
    batch_.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
    waiting_.erase(waiting_.begin(), end);
  }
  if (batch_.empty()) {
    return;
  }
  under_way_ = true;
  ++tries_;
  sender_->send({.id = ids_.make(now_ns / kNsPerMs),
                 .url = config_.url,
                 .headers = {"content-type: application/json", "user-agent: Penstock", "expect:"},
                 .body = otlp_json(instance_, batch_),
                 .targets = anywhere()});
}

void SpanExporter::on_events(uint32_t) {
  for (const WebhookResponse& response : sender_->take()) {
    under_way_ = false;
    const bool taken = response.status >= 200 && response.status < 300;
    if (!taken && may_be_tried_again(response.status) && tries_ < kTries) {
      const int64_t pause_ns = response.retry_after_s > 0
                                   ? std::min<int64_t>(response.retry_after_s, 60) * kNsPerSec
                                   : kFirstRetryNs << (tries_ - 1);
      due_ns_ = now_ns_ + pause_ns;
      continue;
    }
    if (taken) {
      sent_ += batch_.size();
    } else {
      drop(batch_.size(), response.status == 0
                              ? "the collector cannot be reached: " + response.error
                              : "the collector answers " + std::to_string(response.status));
    }
    batch_.clear();
    due_ns_ = waiting_.empty() ? INT64_MAX : now_ns_ + (waiting_.size() >= kBatch ? 0 : kEveryNs);
  }
}

void SpanExporter::drop(size_t spans, const std::string& why) {
  dropped_ += spans;
  untold_ += spans;
  why_ = why;
}

}  // namespace penstock::queue
