// Webhooks: tells the URL that a job's owner named that the job is over (Standard Webhooks 1.0.0).
//
// A delivery is on disk from the job's end until it was taken (2xx), or given up: after the tries
// of kSchedule, or at once by 410 Gone, which ends the URL's other pending deliveries, too. 429 and
// 503 may ask for more time (Retry-After). Times are pushed in; what is sent goes by WebhookSender.
//
//   due ──▶ (its job is read) ──▶ under way ──2xx──▶ (over)
//    ▲   ╲                            │ else
//    │    ◀──▶ waits for its host     │
//    └────────── kSchedule ◀──────────┘ tries + 1
//
// A host that is slow has kMostPerHost places; what else is for it waits without taking one, and
// without its body.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "shared/base/clock.h"
#include "worker/queue/config.h"
#include "worker/queue/store.h"
#include "worker/queue/timer_heap.h"
#include "worker/queue/webhook_sender.h"
#include "worker/queue/webhook_signature.h"

namespace penstock::queue {

class Webhooks {
 public:
  // How long after the try before, in seconds; a tenth more or less, at random.
  static constexpr std::array<int64_t, 9> kSchedule = {5,      300,    1800,   7200,  18'000,
                                                       36'000, 50'400, 72'000, 86'400};
  static constexpr int64_t kLongestRetryAfterSeconds = 86'400;
  // Of both; a delivery that is due later than this is due by a clock that was set back since.
  static constexpr int64_t kLongestWaitMs = kSchedule.back() * 1100;
  static constexpr size_t kMostPending = 100'000;  // more wait on disk for the next start
  static constexpr size_t kMostGone = 1000;        // URLs that said 410

  struct Message {
    std::string url;
    std::string json;
  };
  struct Outcomes {
    uint64_t delivered = 0;
    uint64_t retried = 0;
    uint64_t given_up = 0;
    uint64_t refused_target = 0;
    uint64_t disabled = 0;  // 410
  };

  // `message` is asked for what is to be said of a job; it answers when it knows, with nothing when
  // the job is gone. `tried`: a try was made; the next is due then (ms since 1970), or never (0).
  using Ask = std::function<void(const JobId&, std::function<void(std::optional<Message>)>)>;
  using Tried = std::function<void(const JobId&, uint32_t tries, int64_t due_ms)>;
  Webhooks(Ask message, Tried tried, uint32_t seed = std::random_device{}());

  // What is wrong is said, and nothing changes.
  Status apply(const WebhooksConfig& config);
  bool enabled() const { return !secrets_.empty(); }
  // Whether a callback to this URL may be asked for.
  Status check(std::string_view url) const;

  // Of a job that is pending already, as it was requeued from the dead letters: begins anew.
  void add(const Store::Delivery& delivery, int64_t now_ns, int64_t now_ms);
  void advance_to(int64_t now_ns, int64_t now_ms);
  int64_t next_event() const;
  int event_fd() const { return sender_.event_fd(); }
  void take_responses(int64_t now_ns, int64_t now_ms);

  size_t pending() const { return deliveries_.size(); }
  const Outcomes& outcomes() const { return outcomes_; }

 private:
  struct Delivery;
  struct Host {
    size_t deliveries = 0;  // that know it is theirs
    size_t under_way = 0;
    std::deque<Delivery*> waiting;  // for one of those to end
  };
  using Hosts = std::unordered_map<std::string, Host>;
  // It is in due_, under way, or waiting for its host.
  struct Delivery : TimerHeap::Node {
    JobId id;
    uint32_t tries = 0;
    bool anew = false;              // its job has ended once more while it was not in due_
    Hosts::pointer host = nullptr;  // known from its first message on
  };
  // False: its host has none to give, and the delivery waits for one.
  bool take_place(Delivery& delivery);
  void leave_place(const Delivery& delivery, int64_t now_ns);
  void send(const JobId& id, const std::optional<Message>& message);
  void over(Delivery& delivery);
  void again(Delivery& delivery, int64_t wait_ms, int64_t now_ns, int64_t now_ms);
  int64_t wait_ms(uint32_t tries, const WebhookResponse& response);
  void take(const WebhookResponse& response, int64_t now_ns, int64_t now_ms);

  Ask message_;
  Tried tried_;
  std::minstd_rand random_;
  WebhookSecrets secrets_;
  std::shared_ptr<const WebhookTargets> targets_ = std::make_shared<WebhookTargets>();
  WebhookSender sender_;
  std::unordered_map<uint64_t, Delivery> deliveries_;  // by sequence_of(id)
  Hosts hosts_;                                        // of deliveries_
  TimerHeap due_;
  size_t under_way_ = 0;
  int64_t now_ns_ = 0;
  int64_t now_ms_ = 0;
  std::deque<std::string> gone_;  // URLs
  Outcomes outcomes_;
};

}  // namespace penstock::queue
