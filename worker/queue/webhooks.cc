#include "worker/queue/webhooks.h"

#include <algorithm>

#include "worker/queue/log.h"

namespace penstock::queue {
namespace {

constexpr int kGone = 410;
constexpr int kTooManyRequests = 429;
constexpr int kUnavailable = 503;
constexpr int64_t kMsPerSec = 1000;

bool taken(int status) { return status >= 200 && status < 300; }

}  // namespace

Webhooks::Webhooks(Ask message, Tried tried, uint32_t seed)
    : message_(std::move(message)), tried_(std::move(tried)), random_(seed) {}

Status Webhooks::apply(const WebhooksConfig& config) {
  auto targets = WebhookTargets::create(config.allow);
  if (!targets) {
    return Error{"webhooks.allow: " + targets.error().message};
  }
  WebhookSecrets secrets;
  if (!config.secret_file.empty()) {
    auto loaded = WebhookSecrets::load(config.secret_file);
    if (!loaded) {
      return Error{"webhooks.secret_file: " + loaded.error().message};
    }
    secrets = *std::move(loaded);
  }
  secrets_ = std::move(secrets);
  targets_ = std::make_shared<WebhookTargets>(*std::move(targets));
  return Ok{};
}

Status Webhooks::check(std::string_view url) const {
  return enabled() ? targets_->check(url) : Error{"This service sends no webhooks."};
}

void Webhooks::add(const Store::Delivery& delivery, int64_t now_ns, int64_t now_ms) {
  const auto known = deliveries_.find(sequence_of(delivery.id));
  if (known == deliveries_.end() && deliveries_.size() >= kMostPending) {
    return;
  }
  if (known != deliveries_.end() && !known->second.is_set()) {
    known->second.anew = true;
    return;
  }
  Delivery& added = deliveries_[sequence_of(delivery.id)];
  added.id = delivery.id;
  added.tries = delivery.tries;
  const int64_t wait_ms = std::clamp<int64_t>(delivery.due_ms - now_ms, 0, kLongestWaitMs);
  due_.set(added, now_ns + wait_ms * kNsPerMs);
}

bool Webhooks::take_place(Delivery& delivery) {
  Host& host = delivery.host->second;
  if (host.under_way >= static_cast<size_t>(WebhookSender::kMostPerHost)) {
    host.waiting.push_back(&delivery);
    return false;
  }
  ++host.under_way;
  return true;
}

// Whoever waits longest is due; while any waits, another is under way or due, so none is forgotten.
void Webhooks::leave_place(const Delivery& delivery, int64_t now_ns) {
  --under_way_;
  if (delivery.host == nullptr) {
    return;
  }
  Host& host = delivery.host->second;
  --host.under_way;
  if (!host.waiting.empty()) {
    due_.set(*host.waiting.front(), now_ns);
    host.waiting.pop_front();
  }
}

int64_t Webhooks::next_event() const {
  const bool room = under_way_ < static_cast<size_t>(WebhookSender::kMostAtOnce);
  return enabled() && room ? due_.next_ns() : INT64_MAX;
}

void Webhooks::advance_to(int64_t now_ns, int64_t now_ms) {
  now_ns_ = now_ns;
  now_ms_ = now_ms;
  while (next_event() <= now_ns) {
    auto& delivery = static_cast<Delivery&>(*due_.first());
    due_.erase(delivery);
    if (delivery.host != nullptr && !take_place(delivery)) {
      continue;
    }
    delivery.tries = delivery.anew ? 0 : delivery.tries;
    delivery.anew = false;
    ++under_way_;
    message_(delivery.id, [this, id = delivery.id](const std::optional<Message>& message) {
      send(id, message);
    });
  }
}

void Webhooks::send(const JobId& id, const std::optional<Message>& message) {
  Delivery& delivery = deliveries_.at(sequence_of(id));
  const bool gone = message && std::find(gone_.begin(), gone_.end(), message->url) != gone_.end();
  if (!message || gone) {
    outcomes_.disabled += gone ? 1 : 0;
    leave_place(delivery, now_ns_);
    return over(delivery);
  }
  if (!enabled()) {  // by a reload, meanwhile
    leave_place(delivery, now_ns_);
    return due_.set(delivery, now_ns_);
  }
  if (delivery.host == nullptr) {
    delivery.host = &*hosts_.try_emplace(host_of(message->url)).first;
    ++delivery.host->second.deliveries;
    if (!take_place(delivery)) {
      --under_way_;
      return;
    }
  }
  const std::string name = "msg_" + std::string(id.view().substr(4));
  const int64_t timestamp = now_ms_ / kMsPerSec;
  sender_.send(
      {.id = id,
       .url = message->url,
       .headers = {"content-type: application/json", "user-agent: Penstock", "webhook-id: " + name,
                   "webhook-timestamp: " + std::to_string(timestamp),
                   "webhook-signature: " + secrets_.sign(name, timestamp, message->json)},
       .body = message->json,
       .targets = targets_});
}

void Webhooks::over(Delivery& delivery) {
  const JobId id = delivery.id;
  const uint32_t tries = delivery.tries;
  if (delivery.host != nullptr && --delivery.host->second.deliveries == 0) {
    hosts_.erase(hosts_.find(delivery.host->first));
  }
  deliveries_.erase(sequence_of(id));
  tried_(id, tries, 0);
}

void Webhooks::again(Delivery& delivery, int64_t wait_ms, int64_t now_ns, int64_t now_ms) {
  ++outcomes_.retried;
  due_.set(delivery, now_ns + wait_ms * kNsPerMs);
  tried_(delivery.id, delivery.tries, now_ms + wait_ms);
}

// REQUIRES: tries is in kSchedule.
int64_t Webhooks::wait_ms(uint32_t tries, const WebhookResponse& response) {
  const int64_t seconds = kSchedule[tries - 1];
  std::uniform_int_distribution<int64_t> spread(seconds * 900, seconds * 1100);
  const int64_t planned_ms = spread(random_);
  if (response.status != kTooManyRequests && response.status != kUnavailable) {
    return planned_ms;
  }
  const int64_t asked_s = std::min(response.retry_after_s, kLongestRetryAfterSeconds);
  return std::max(planned_ms, asked_s * kMsPerSec);
}

void Webhooks::take_responses(int64_t now_ns, int64_t now_ms) {
  for (const WebhookResponse& response : sender_.take()) {
    take(response, now_ns, now_ms);
  }
}

void Webhooks::take(const WebhookResponse& response, int64_t now_ns, int64_t now_ms) {
  Delivery& delivery = deliveries_.at(sequence_of(response.id));
  leave_place(delivery, now_ns);
  ++delivery.tries;
  outcomes_.delivered += taken(response.status) ? 1 : 0;
  outcomes_.refused_target += response.refused ? 1 : 0;
  if (response.status == kGone) {
    ++outcomes_.disabled;
    gone_.push_back(response.url);
    if (gone_.size() > kMostGone) {
      gone_.pop_front();
    }
  }
  if (delivery.anew) {  // what was sent is not the news any more
    due_.set(delivery, now_ns);
  } else if (taken(response.status) || response.status == kGone) {
    over(delivery);
  } else if (response.refused || delivery.tries > kSchedule.size()) {
    ++outcomes_.given_up;
    log(Level::kWarn,
        "the webhook of " + std::string(response.id.view()) + " was given up: " +
            (response.refused       ? "its address is private or special"
             : response.status != 0 ? "the receiver says " + std::to_string(response.status)
                                    : response.error));
    over(delivery);
  } else {
    again(delivery, wait_ms(delivery.tries, response), now_ns, now_ms);
  }
}

}  // namespace penstock::queue
