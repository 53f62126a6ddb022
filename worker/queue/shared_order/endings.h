// Endings: what is still to be told of the ends of a queue's jobs, kept in Redis for all hosts.
//
// The script that ends a job puts its end in line, as the job's marks say (SharedOrder::Mark). Any
// host takes some, by a lease: so one host at a time tells an end, and if that dies another does.
// Its fence is the lease's end: what a host says of an end counts only with that. So each is told
// at least once, and again only where a host died, or was cut off, after it had told it.
//
//     in line ──take()──▶ under a lease ──told(0)──▶ (over)
//        ▲                    │   │
//        └──── told(later) ◀──┘   └── the lease ends ──▶ in line
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "worker/queue/shared_order/shared_order.h"

namespace penstock::queue {

class Endings {
 public:
  // A URL is tried for 15 s at most.
  static constexpr int64_t kLeaseUs = 20'000'000;
  static constexpr std::string_view kUrls = "w";
  static constexpr std::string_view kFeed = "e";
  static std::string hook(const std::string& name) { return "n|" + name; }

  // `servers` lives longer. `key`: the queue's, as SharedOrder::key().
  Endings(redis::Servers& servers, std::string key) : servers_(servers), key_(std::move(key)) {}
  ~Endings() { *alive_ = false; }
  Endings(const Endings&) = delete;
  Endings& operator=(const Endings&) = delete;

  template <typename T>
  using Then = SharedOrder::Then<T>;

  struct Taken {
    std::string id, fence;
    uint32_t tries = 0;        // before
    uint64_t owner = 0;        // whose share the job took
    SharedOrder::Known known;  // kOver
  };
  struct Page {
    std::vector<Taken> taken;
    int64_t due_us = SharedOrder::kNever;  // until the next is due
    uint64_t all = 0;
    std::vector<std::string> gone;  // URLs that want no more, that this has not been told of
  };
  // As all that follow: false: it was not sent, and is not answered.
  // `bytes`: how much is told of each job's result.
  bool take(std::string_view kind, size_t most, int64_t lease_us, size_t bytes, Then<Page> then);

  struct Ending {
    std::string fence;         // from now on; empty: it is not this host's to tell
    SharedOrder::Known known;  // kOver
  };
  // What is to be told, with `most` bytes of the job's result. The lease begins anew.
  bool look(std::string_view kind, std::string_view id, std::string_view fence, size_t most,
            int64_t lease_us, Then<Ending> then);

  // Of owners' URLs.
  enum class Outcome : uint8_t { kNone, kDelivered, kGivenUp, kGone };
  // It is tried again after that, or is over (kNever). `gone`: a URL that wants no more. False: the
  // lease was another's.
  bool told(std::string_view kind, const Taken& ending, int64_t after_us, Outcome outcome,
            std::string_view gone, Then<bool> then);

 private:
  redis::Servers& servers_;
  const std::string key_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::string gone_until_ = "0";  // what it has been told of
};

}  // namespace penstock::queue
