// SharedReceipts: what one host does about receipts that any host's edge could settle
// (shared_order/receipts.h): it notes those of its own jobs, makes sure before one of them is
// settled that nobody else does it, and takes those whose home is gone. What Redis does not answer
// is asked again.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/shared_order/receipts.h"

namespace penstock::queue {

class SharedReceipts {
 public:
  static constexpr int64_t kLookNs = 2 * kNsPerSec;  // for homes that are gone
  static constexpr int64_t kRetryNs = 100 * kNsPerMs;
  static constexpr size_t kMostSaid = 64;           // in one request
  static constexpr size_t kMostBytes = 256U << 10;  // likewise, but for the last
  static constexpr size_t kMostTaken = 16;          // likewise
  static constexpr size_t kMostWaiting = 10'000;    // of either kind; beyond, the oldest go

  using Whose = Receipts::Whose;
  class User {
   public:
    // Whether an edge listens; and whether it can settle what another has charged, and is done with
    // what it was given of that.
    virtual bool settles() const = 0;
    virtual bool settles_others() const = 0;
    virtual void on_inherited(const Receipts::Inherited& inherited) = 0;

   protected:
    ~User() = default;
  };

  SharedReceipts(redis::Servers& servers, std::string key) : receipts_(servers, std::move(key)) {}
  ~SharedReceipts() { *alive_ = false; }
  SharedReceipts(const SharedReceipts&) = delete;
  SharedReceipts& operator=(const SharedReceipts&) = delete;

  // It lives longer; without one nothing is settled here.
  void use(User& user) { user_ = &user; }

  // Of a job that was promised here.
  void note(std::string id, std::string receipt);
  // Whose it is to settle, once that is sure.
  void settle(std::string id, std::function<void(Whose)> told);

  // What is to be sent is sent. `home`: this host's; empty: it has none now.
  void flush(const std::string& home, int64_t now_ns);
  int64_t next_event() const;

 private:
  struct Settling {
    std::string id;
    std::function<void(Whose)> told;
  };

  void send_noted(const std::string& home);
  void send_settling();
  void look();

  Receipts receipts_;
  User* user_ = nullptr;
  std::deque<Receipts::Charged> noted_;
  std::deque<Settling> settling_;
  std::set<std::string> too_late_;  // what is noted now is not noted again of these
  bool noting_ = false;             // a request is under way
  bool asking_ = false;             // likewise
  bool looking_ = false;            // likewise
  int64_t retry_ns_ = 0;            // not before
  int64_t look_ns_ = 0;             // when next
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace penstock::queue
