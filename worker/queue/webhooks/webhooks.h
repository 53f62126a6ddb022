// Webhooks: tells the URL that a job's owner named that the job is over (Standard Webhooks 1.0.0).
//
// A delivery is on disk from the job's end until it is taken (2xx) or given up. It is given up
// after the tries of kSchedule, or at once by 410 Gone, which ends the other deliveries to that
// URL, too, over restarts. 429 and 503 may ask for more time (Retry-After). Times are pushed in.
// WebhookSender sends.
//
//   on disk, due later ──▶ ready ──▶ (its job is read) ──▶ under way ──2xx──▶ (over)
//    ▲                      │ ▲ ╲                              │ else
//    │         waits for a place  ◀─────────╮                  │
//    └────────────────── kSchedule ◀────────┴──────────────────┘ tries + 1
//
// The disk is the queue. Only what is due is in memory, and only a bounded part of it: the rest is
// read when there is room again. An owner gets a part of that room and of the places under way. An
// address (a host and its port) gets fewer still. So no receiver that hangs, and no owner of many
// deliveries, holds up those of others. A delivery that waits for a place is kept without its body.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "shared/base/clock.h"
#include "worker/queue/config/config.h"
#include "worker/queue/store/store.h"
#include "worker/queue/text/log.h"
#include "worker/queue/webhooks/sender.h"
#include "worker/queue/webhooks/signature.h"

namespace penstock::queue {

class Webhooks {
 public:
  // How long after the try before, in seconds; a tenth more or less, at random.
  static constexpr std::array<int64_t, 9> kSchedule = {5,      300,    1800,   7200,  18'000,
                                                       36'000, 50'400, 72'000, 86'400};
  static constexpr int64_t kLongestRetryAfterSeconds = 86'400;
  // The longest of both waits. A delivery that is due later is due by a clock that was set back
  // since.
  static constexpr int64_t kLongestWaitMs = kSchedule.back() * 1100;
  static constexpr size_t kMostGone = 1000;  // URLs that said 410
  // In memory.
  struct Bounds {
    size_t all = 20'000;
    size_t of_owner = 2000;
    size_t page = 1000;  // rows read at once
  };
  static constexpr size_t kMostPerOwner = 8;  // under way
  static_assert(WebhookSender::kMostPerHost < kMostPerOwner &&
                kMostPerOwner < WebhookSender::kMostAtOnce);

  struct Message {
    std::string url;
    std::string json;
    std::vector<std::string> headers;  // besides: "name: value"
  };
  struct Outcomes {
    uint64_t delivered = 0;
    uint64_t retried = 0;
    uint64_t given_up = 0;
    uint64_t refused_target = 0;
    uint64_t disabled = 0;  // 410
  };

  // What came of a try. kGone: the URL said 410, now or before.
  enum class Fate : uint8_t { kAgain, kDelivered, kGivenUp, kGone };

  // What is asked of others.
  struct Calls {
    // What is to be said of a job; answered when it is known, with nothing when the job is gone.
    std::function<void(const JobId&, std::function<void(std::optional<Message>)>)> message;
    // A try was made; the next is due then (ms since 1970), or never (0).
    std::function<void(const JobId&, uint32_t tries, int64_t due_ms, Fate fate)> tried;
    // The deliveries on disk.
    std::function<void(const DueQuery&, std::function<void(DuePage)>)> due;
    // The URL said 410: not to be asked in another life either.
    std::function<void(const std::string& url)> gone;
  };
  explicit Webhooks(Calls calls, uint32_t seed = std::random_device{}())
      : Webhooks(std::move(calls), seed, Bounds()) {}
  Webhooks(Calls calls, uint32_t seed, const Bounds& bounds);

  // An Error says what is wrong, and nothing changes.
  Status apply(const WebhooksConfig& config);
  bool enabled() const { return !secrets_.empty(); }
  // Whether a callback to this URL may be asked for.
  Status check(std::string_view url) const;
  // The URL said 410 once.
  void set_gone(const std::string& url);

  // A new delivery, due at once. It begins anew if the job has one already, as it was requeued from
  // the dead letters.
  void add(const DueDelivery& delivery);
  // There may be some that are due, that were not before.
  void look_soon() { scan_due_ns_ = now_ns_; }
  void advance_to(int64_t now_ns, int64_t now_ms);
  int64_t next_event() const;
  int event_fd() const { return sender_.event_fd(); }
  void take_responses(int64_t now_ns, int64_t now_ms);

  // The time of day as if it had never been stepped: deliveries are due by it.
  int64_t steady_ms() const { return began_ms_ + now_ns_ / kNsPerMs; }
  // How many are to be delivered, on disk or in memory. Looked up each minute, and counted in
  // between.
  uint64_t pending() const { return pending_; }
  size_t in_memory() const { return deliveries_.size(); }
  const Outcomes& outcomes() const { return outcomes_; }

 private:
  struct Delivery;
  // What bounds how many are under way at once: an owner, or an address.
  struct Place {
    size_t most = 0;
    size_t known = 0;  // deliveries in memory that are its own
    size_t under_way = 0;
    std::deque<Delivery*> waiting;  // for one of those to end
  };
  struct Owner : Place {
    Owner() { most = kMostPerOwner; }
    bool behind = false;  // some that are due are on disk alone
  };
  struct Address : Place {
    Address() { most = static_cast<size_t>(WebhookSender::kMostPerHost); }
  };
  using Owners = std::unordered_map<uint64_t, Owner>;
  using Addresses = std::unordered_map<std::string, Address>;
  struct Delivery {
    JobId id;
    uint32_t tries = 0;
    bool ready = true;  // else under way, or waiting for a place
    bool anew = false;  // its job has ended once more while it was not ready
    Owners::pointer owner = nullptr;
    Addresses::pointer address = nullptr;  // known from its message on
  };
  enum class Held : uint8_t { kHeld, kOwnerIsFull, kFull };

  Held hold(const DueDelivery& delivery);
  void forget(Delivery& delivery);
  void page();
  void take_page(const DueQuery& query, const DuePage& page);
  void settle_owner(uint64_t id, bool behind);
  void plan_scan(int64_t until_ms, int64_t next_ms);

  bool enter(Delivery& delivery);
  void leave(Delivery& delivery);
  void wake(Place& place);
  void make_ready(Delivery& delivery);
  void send(const JobId& id, const std::optional<Message>& message);
  void over(Delivery& delivery, Fate fate);
  void again(Delivery& delivery, int64_t wait_ms);
  int64_t wait_ms(uint32_t tries, const WebhookResponse& response);
  void take(const WebhookResponse& response);
  void set_now(int64_t now_ns, int64_t now_ms);
  Calls calls_;
  const Bounds bounds_;
  std::minstd_rand random_;
  WebhookSecrets secrets_;
  std::shared_ptr<const WebhookTargets> targets_ = std::make_shared<WebhookTargets>();
  WebhookSender sender_;
  std::map<JobId, Delivery> deliveries_;
  Owners owners_;        // of deliveries_, and those that are behind
  Addresses addresses_;  // of deliveries_
  std::deque<Delivery*> ready_;
  size_t under_way_ = 0;
  uint64_t pending_ = 0;

  // What is on disk: all that is due up to `seen_` is in memory, or its owner is behind.
  struct Cursor {
    int64_t due_ms = INT64_MIN;
    uint64_t sequence = 0;
  };
  Cursor seen_;
  bool full_ = false;           // there is no room in memory for what comes behind seen_
  bool set_back_ = false;       // what is due last is so by a clock that was set back since
  int64_t scan_due_ns_ = 0;     // then it is looked what has become due
  std::deque<uint64_t> short_;  // owners that are behind and have room
  bool paging_ = false;
  std::set<JobId> settled_;  // meanwhile, whatever the page says

  int64_t now_ns_ = 0;
  int64_t now_ms_ = 0;
  int64_t began_ms_ = 0;
  std::deque<std::string> gone_;                  // URLs, the oldest first
  std::unordered_set<std::string_view> is_gone_;  // into gone_
  Outcomes outcomes_;
  BoundedLog given_up_;
};

}  // namespace penstock::queue
