// Receipts: what edges have charged for a queue's promised jobs under limits that are in Redis,
// too, kept beside the jobs: so it is settled once by their home, or by another host if that is
// gone.
//
//     (none) ──charge()──▶ the home's ──settle()──▶ settled
//                              └──30 s without a renewal, its job is over──inherit()──▶ settled
//
// Whoever gets it settles it; nobody else does from then on, whatever the clocks say. If that host
// dies before it has, what was charged stands.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "worker/queue/shared_order/shared_order.h"

namespace penstock::queue {

class Receipts {
 public:
  // `servers` lives longer. `key`: the queue's, as SharedOrder::key().
  Receipts(redis::Servers& servers, std::string key) : servers_(servers), key_(std::move(key)) {}
  ~Receipts() { *alive_ = false; }
  Receipts(const Receipts&) = delete;
  Receipts& operator=(const Receipts&) = delete;

  template <typename T>
  using Then = SharedOrder::Then<T>;

  struct Charged {
    std::string id, receipt;
  };
  // As all that follow: false: it was not sent, and is not answered. Each may be said again.
  bool charge(std::string_view home, std::span<const Charged> jobs, Then<bool> then);

  // kSettled: by another host. kAgain: it was to be settled before, or Redis does not know of it.
  enum class Whose : uint8_t { kSettled = 0, kOurs = 1, kAgain = 2 };
  bool settle(std::span<const std::string_view> ids, Then<std::vector<Whose>> then);

  struct Inherited {
    std::string id, receipt;
    SharedOrder::Known known;  // kOver
  };
  struct Page {
    bool more = false;  // again at once
    std::vector<Inherited> all;
  };
  // `bytes`: how much is told of each job's result.
  bool inherit(size_t most, size_t bytes, size_t receipt_bytes, Then<Page> then);

  // A test's own time instead of Redis's.
  void set_clock(int64_t now_us) noexcept { now_us_ = now_us; }

 private:
  redis::Servers& servers_;
  const std::string key_;
  int64_t now_us_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace penstock::queue
