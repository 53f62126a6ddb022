#include "worker/queue/webhooks/webhooks.h"

#include <algorithm>
namespace penstock::queue {
namespace {

constexpr int kGone = 410;
constexpr int kTooManyRequests = 429;
constexpr int kUnavailable = 503;
constexpr int64_t kMsPerSec = 1000;
constexpr int64_t kRecountMs = 60 * kMsPerSec;

bool taken(int status) { return status >= 200 && status < 300; }

}  // namespace

Webhooks::Webhooks(Calls calls, uint32_t seed, const Bounds& bounds)
    : calls_(std::move(calls)), bounds_(bounds), random_(seed) {}

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

void Webhooks::set_gone(const std::string& url) {
  if (is_gone_.contains(url)) {
    return;
  }
  is_gone_.insert(gone_.emplace_back(url));
  if (gone_.size() > kMostGone) {
    is_gone_.erase(gone_.front());
    gone_.pop_front();
  }
}

void Webhooks::set_now(int64_t now_ns, int64_t now_ms) {
  now_ns_ = now_ns;
  now_ms_ = now_ms;
  began_ms_ = began_ms_ == 0 ? now_ms - now_ns / kNsPerMs : began_ms_;
}

// ---- what is in memory ----

void Webhooks::add(const DueDelivery& delivery) {
  if (const auto known = deliveries_.find(delivery.id); known != deliveries_.end()) {
    known->second.anew = known->second.anew || !known->second.ready;
    return;
  }
  ++pending_;
  if (hold(delivery) == Held::kFull) {  // it is behind seen_, which has passed its time
    full_ = true;
    seen_ = {};
  }
}

Webhooks::Held Webhooks::hold(const DueDelivery& delivery) {
  if (deliveries_.size() >= bounds_.all) {
    return Held::kFull;
  }
  const auto owner = owners_.try_emplace(delivery.owner).first;
  if (owner->second.known >= bounds_.of_owner) {
    owner->second.behind = true;
    return Held::kOwnerIsFull;
  }
  ++owner->second.known;
  Delivery& held = deliveries_[delivery.id];
  held.id = delivery.id;
  held.tries = delivery.tries;
  held.owner = &*owner;
  ready_.push_back(&held);
  return Held::kHeld;
}

// It is over, or due later: then it will be read again.
void Webhooks::forget(Delivery& delivery) {
  const JobId id = delivery.id;
  if (paging_) {
    settled_.insert(id);
  }
  if (delivery.address != nullptr && --delivery.address->second.known == 0) {
    addresses_.erase(addresses_.find(delivery.address->first));
  }
  Owner& owner = delivery.owner->second;
  --owner.known;
  if (owner.behind && owner.known == bounds_.of_owner / 2) {
    short_.push_back(delivery.owner->first);
  } else if (!owner.behind && owner.known == 0) {
    owners_.erase(owners_.find(delivery.owner->first));
  }
  deliveries_.erase(id);
  if (full_ && deliveries_.size() <= bounds_.all / 2) {
    full_ = false;
    scan_due_ns_ = now_ns_;
  }
}

// ---- what is on disk ----

// Looks for what has become due, or for more of an owner of many.
void Webhooks::page() {
  if (full_) {
    return;
  }
  DueQuery query{.until_ms = steady_ms(), .limit = static_cast<uint32_t>(bounds_.page)};
  if (!short_.empty()) {
    query.owner = short_.front();
    query.limit = static_cast<uint32_t>(bounds_.of_owner);
  } else if (scan_due_ns_ <= now_ns_) {
    query.after_ms = seen_.due_ms;
    query.after_sequence = seen_.sequence;
    query.until_ms = set_back_ ? INT64_MAX : query.until_ms;
  } else {
    return;
  }
  paging_ = true;
  calls_.due(query, [this, query](const DuePage& found) { take_page(query, found); });
}

void Webhooks::take_page(const DueQuery& query, const DuePage& page) {
  bool room = true;
  for (const DueDelivery& each : page.due) {
    if (!settled_.contains(each.id) && !deliveries_.contains(each.id) &&
        hold(each) == Held::kFull) {
      room = false;
      break;
    }
    if (!query.owner && !set_back_) {
      seen_ = {each.due_ms, sequence_of(each.id)};
    }
  }
  paging_ = false;
  settled_.clear();
  pending_ = page.all.value_or(pending_);
  full_ = full_ || !room;
  const bool more = page.due.size() == query.limit;
  if (query.owner) {
    settle_owner(*query.owner, more || !room);
  } else if (room && more && !set_back_) {
    scan_due_ns_ = now_ns_;
  } else if (room) {
    plan_scan(query.until_ms, page.next_ms);
  }
}

void Webhooks::settle_owner(uint64_t id, bool behind) {
  short_.pop_front();
  const auto owner = owners_.find(id);
  if (owner == owners_.end()) {
    return;
  }
  owner->second.behind = behind;
  if (behind && owner->second.known <= bounds_.of_owner / 2) {
    short_.push_back(id);
  } else if (!behind && owner->second.known == 0) {
    owners_.erase(owner);
  }
}

// All that is due by `until_ms` was seen, and the next is due at `next_ms` (0: there is none).
void Webhooks::plan_scan(int64_t until_ms, int64_t next_ms) {
  const int64_t wait_ms = next_ms == 0 ? kRecountMs : next_ms - steady_ms();
  set_back_ = wait_ms > kLongestWaitMs;
  const bool at_once = set_back_ && until_ms != INT64_MAX;
  scan_due_ns_ = now_ns_ + (at_once ? 0 : std::clamp<int64_t>(wait_ms, 0, kRecountMs) * kNsPerMs);
}

// ---- places ----

// False: its owner or its address has none to give, and the delivery waits for one.
bool Webhooks::enter(Delivery& delivery) {
  Place& owner = delivery.owner->second;
  Place* const address = delivery.address != nullptr ? &delivery.address->second : nullptr;
  Place* const lacking = owner.under_way >= owner.most                               ? &owner
                         : address != nullptr && address->under_way >= address->most ? address
                                                                                     : nullptr;
  if (lacking != nullptr) {
    lacking->waiting.push_back(&delivery);
    // Of the other it may have been the one that was told of a free place.
    wake(owner);
    if (address != nullptr) {
      wake(*address);
    }
    return false;
  }
  ++owner.under_way;
  if (address != nullptr) {
    ++address->under_way;
  }
  ++under_way_;
  return true;
}

// Whoever waits longest is ready; while any waits, another is under way or ready, so none is
// forgotten.
void Webhooks::leave(Delivery& delivery) {
  --under_way_;
  --delivery.owner->second.under_way;
  wake(delivery.owner->second);
  if (delivery.address != nullptr) {
    --delivery.address->second.under_way;
    wake(delivery.address->second);
  }
}

void Webhooks::wake(Place& place) {
  if (place.under_way < place.most && !place.waiting.empty()) {
    make_ready(*place.waiting.front());
    place.waiting.pop_front();
  }
}

void Webhooks::make_ready(Delivery& delivery) {
  delivery.ready = true;
  ready_.push_back(&delivery);
}

// ---- time ----

int64_t Webhooks::next_event() const {
  if (!enabled()) {
    return INT64_MAX;
  }
  if ((!ready_.empty() && under_way_ < static_cast<size_t>(WebhookSender::kMostAtOnce)) ||
      (!paging_ && !full_ && !short_.empty())) {
    return now_ns_;
  }
  return paging_ || full_ ? INT64_MAX : scan_due_ns_;
}

void Webhooks::advance_to(int64_t now_ns, int64_t now_ms) {
  set_now(now_ns, now_ms);
  if (!enabled()) {
    return;
  }
  if (!paging_) {
    page();
  }
  while (!ready_.empty() && under_way_ < static_cast<size_t>(WebhookSender::kMostAtOnce)) {
    Delivery& delivery = *ready_.front();
    ready_.pop_front();
    delivery.ready = false;
    if (!enter(delivery)) {
      continue;
    }
    delivery.tries = delivery.anew ? 0 : delivery.tries;
    delivery.anew = false;
    calls_.message(delivery.id, [this, id = delivery.id](const std::optional<Message>& message) {
      send(id, message);
    });
  }
}

// ---- one delivery ----

void Webhooks::send(const JobId& id, const std::optional<Message>& message) {
  Delivery& delivery = deliveries_.at(id);
  const bool gone = message && is_gone_.contains(message->url);
  if (!message || gone) {
    outcomes_.disabled += gone ? 1 : 0;
    leave(delivery);
    return over(delivery, gone ? Fate::kGone : Fate::kGivenUp);
  }
  if (!enabled()) {  // by a reload, meanwhile
    leave(delivery);
    return make_ready(delivery);
  }
  if (delivery.address == nullptr) {
    leave(delivery);
    delivery.address = &*addresses_.try_emplace(address_of(message->url)).first;
    ++delivery.address->second.known;
    if (!enter(delivery)) {
      return;
    }
  }
  const std::string name = "msg_" + std::string(id.view().substr(4));
  const int64_t timestamp = now_ms_ / kMsPerSec;
  std::vector<std::string> headers = {
      "content-type: application/json", "user-agent: Penstock", "webhook-id: " + name,
      "webhook-timestamp: " + std::to_string(timestamp),
      "webhook-signature: " + webhook_signature(secrets_, name, timestamp, message->json)};
  headers.insert(headers.end(), message->headers.begin(), message->headers.end());
  sender_.send({.id = id,
                .url = message->url,
                .headers = std::move(headers),
                .body = message->json,
                .targets = targets_});
}

void Webhooks::over(Delivery& delivery, Fate fate) {
  pending_ -= pending_ > 0 ? 1 : 0;
  calls_.tried(delivery.id, delivery.tries, 0, fate);
  forget(delivery);
}

void Webhooks::again(Delivery& delivery, int64_t wait_ms) {
  ++outcomes_.retried;
  calls_.tried(delivery.id, delivery.tries, steady_ms() + wait_ms, Fate::kAgain);
  scan_due_ns_ = std::min(scan_due_ns_, now_ns_ + wait_ms * kNsPerMs);
  forget(delivery);
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
  set_now(now_ns, now_ms);
  for (const WebhookResponse& response : sender_.take()) {
    take(response);
  }
}

void Webhooks::take(const WebhookResponse& response) {
  Delivery& delivery = deliveries_.at(response.id);
  leave(delivery);
  ++delivery.tries;
  outcomes_.delivered += taken(response.status) ? 1 : 0;
  outcomes_.refused_target += response.refused ? 1 : 0;
  if (response.status == kGone) {
    ++outcomes_.disabled;
    set_gone(response.url);
    calls_.gone(response.url);
  }
  if (delivery.anew) {  // what was sent is not the news any more
    make_ready(delivery);
  } else if (taken(response.status) || response.status == kGone) {
    over(delivery, response.status == kGone ? Fate::kGone : Fate::kDelivered);
  } else if (response.refused || delivery.tries > kSchedule.size()) {
    ++outcomes_.given_up;
    given_up_.line(
        Level::kWarn,
        "the webhook of " + std::string(response.id.view()) + " was given up: " +
            (response.refused       ? "its address is private or special"
             : response.status != 0 ? "the receiver says " + std::to_string(response.status)
                                    : response.error),
        now_ns_);
    over(delivery, Fate::kGivenUp);
  } else {
    again(delivery, wait_ms(delivery.tries, response));
  }
}

}  // namespace penstock::queue
