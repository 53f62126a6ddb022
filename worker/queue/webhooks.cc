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
  if (deliveries_.size() >= kMostPending) {
    return;
  }
  Delivery& added = deliveries_[sequence_of(delivery.id)];
  added.id = delivery.id;
  added.tries = delivery.tries;
  due_.set(added, now_ns + std::max<int64_t>(0, delivery.due_ms - now_ms) * kNsPerMs);
}

Webhooks::Delivery* Webhooks::find(const JobId& id) {
  const auto found = deliveries_.find(sequence_of(id));
  return found == deliveries_.end() ? nullptr : &found->second;
}

int64_t Webhooks::next_event() const {
  const bool room = under_way_ < static_cast<size_t>(WebhookSender::kMostAtOnce);
  return enabled() && room ? due_.next_ns() : INT64_MAX;
}

void Webhooks::advance_to(int64_t now_ns, int64_t now_ms) {
  now_ms_ = now_ms;
  while (next_event() <= now_ns) {
    auto& delivery = static_cast<Delivery&>(*due_.first());
    due_.erase(delivery);
    ++under_way_;
    message_(delivery.id, [this, id = delivery.id](const std::optional<Message>& message) {
      send(id, message);
    });
  }
}

void Webhooks::send(const JobId& id, const std::optional<Message>& message) {
  Delivery* const delivery = find(id);
  if (delivery == nullptr) {
    return;
  }
  const bool gone = message && std::find(gone_.begin(), gone_.end(), message->url) != gone_.end();
  if (!message || gone) {
    outcomes_.disabled += gone ? 1 : 0;
    --under_way_;
    return over(id, delivery->tries);
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

void Webhooks::over(const JobId& id, uint32_t tries) {
  deliveries_.erase(sequence_of(id));
  tried_(id, tries, 0);
}

void Webhooks::again(Delivery& delivery, int64_t wait_ms, int64_t now_ns, int64_t now_ms) {
  ++outcomes_.retried;
  due_.set(delivery, now_ns + wait_ms * kNsPerMs);
  tried_(delivery.id, delivery.tries, now_ms + wait_ms);
}

void Webhooks::take_responses(int64_t now_ns, int64_t now_ms) {
  for (const WebhookResponse& response : sender_.take()) {
    --under_way_;
    Delivery* const delivery = find(response.id);
    if (delivery == nullptr) {
      continue;
    }
    ++delivery->tries;
    outcomes_.refused_target += response.refused ? 1 : 0;
    if (taken(response.status)) {
      ++outcomes_.delivered;
      over(response.id, delivery->tries);
    } else if (response.status == kGone) {
      ++outcomes_.disabled;
      gone_.push_back(response.url);
      if (gone_.size() > kMostGone) {
        gone_.pop_front();
      }
      over(response.id, delivery->tries);
    } else if (response.refused || delivery->tries > kSchedule.size()) {
      ++outcomes_.given_up;
      log(Level::kWarn,
          "the webhook of " + std::string(response.id.view()) + " was given up: " +
              (response.refused       ? "its address is private or special"
               : response.status != 0 ? "the receiver says " + std::to_string(response.status)
                                      : response.error));
      over(response.id, delivery->tries);
    } else {
      const int64_t seconds = kSchedule[delivery->tries - 1];
      std::uniform_int_distribution<int64_t> spread(seconds * 900, seconds * 1100);
      int64_t wait_ms = spread(random_);
      if (response.status == kTooManyRequests || response.status == kUnavailable) {
        wait_ms = std::max(wait_ms,
                           std::min(response.retry_after_s, kLongestRetryAfterSeconds) * kMsPerSec);
      }
      again(*delivery, wait_ms, now_ns, now_ms);
    }
  }
}

}  // namespace penstock::queue
