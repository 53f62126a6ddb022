// Membership: a host among those that share a queue. It joins by a name that nobody had before,
// says each second that it lives, and does its part of what somebody must do: takes back what the
// dead ran, and has done what is due.
//
//     out ──▶ joining ──▶ in ──each second──▶ in
//      ▲                  │ Redis does not know it; or has not answered while the lease lasted
//      └──── expelled ◀───┘
//
// When its lease ends, others take its jobs back and run them. The end is kept by the host's own
// clock, from the sending of the last renewal that was answered, and a margin before Redis's: so it
// has been told to stop them by then, whatever the clocks say.
//
// What Redis thinks it runs is compared, with each renewal, to what it runs. A job that was taken
// by a request whose answer was lost is given back so, without an attempt.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "worker/queue/shared_order/shared_order.h"

namespace penstock::queue {

class Membership {
 public:
  static constexpr int64_t kEveryNs = 1'000'000'000;
  static constexpr int64_t kLeaseNs = 8'000'000'000;
  static constexpr int64_t kMarginNs = 1'000'000'000;
  static constexpr size_t kMostReaped = 100;  // in one request

  class User {
   public:
    // It may take jobs, as host().
    virtual void on_joined() = 0;
    // What it runs is not its own any more, and is to be stopped. `why` is a sentence's beginning.
    virtual void on_expelled(std::string_view why) = 0;
    // Redis was emptied, or has gone back to before the queue was made: what was promised by this
    // host, and has not ended, is to be added again.
    virtual void on_lost_data() = 0;
    // How many jobs it has taken and not finished, as far as it has heard.
    virtual size_t running() const = 0;
    virtual bool runs(std::string_view id, uint64_t fence) const = 0;
    // What Redis thinks it runs, where that is not what it runs: all else is to be stopped.
    virtual void on_held(const std::vector<SharedOrder::Held>& held) = 0;

   protected:
    ~User() = default;
  };

  // Both live longer.
  Membership(SharedOrder& order, User& user);
  ~Membership();
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

  // By which jobs are taken; empty while it is out.
  const std::string& host() const noexcept { return is_in_ ? host_ : kNone; }
  // What it is to callers who wait here, whatever its name is; empty while it is out.
  const std::string& home() const noexcept { return is_in_ ? home_ : kNone; }
  uint64_t hosts() const noexcept { return hosts_; }
  // When the last renewal was sent that was answered; 0: none was.
  int64_t renewed_ns() const noexcept { return renewed_ns_; }
  // Since when it goes without a renewal: the last one, or its beginning.
  int64_t silent_since_ns() const noexcept { return renewed_ns_ != 0 ? renewed_ns_ : begun_ns_; }
  // Jobs of hosts that died, which this one has put back or ended.
  uint64_t reaped() const noexcept { return reaped_; }

  // Elapsed time is pushed in.
  void advance_to(int64_t now_ns);
  int64_t next_event() const noexcept;
  // Something is due in so long, as an answer has said (SharedOrder::kNever: nothing is).
  void note_due(int64_t due_us, int64_t now_ns) noexcept;
  // It goes: what it still runs is taken back by others at once.
  void leave();

 private:
  void renew(int64_t now_ns);
  void renewed(const SharedOrder::Renewed& answer, int64_t sent_ns);
  void expel(std::string_view why);
  void compare();
  void advance();
  void reap();

  static const std::string kNone;
  SharedOrder& order_;
  User& user_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // of answers that come too late
  const std::string home_ = SharedOrder::new_host();
  std::string host_;
  bool is_in_ = false;
  bool asking_ = false;
  int64_t begun_ns_ = 0;  // 0: not yet
  int64_t now_ns_ = 0;
  int64_t renew_ns_ = 0;  // when next
  int64_t asked_ns_ = 0;
  int64_t ends_ns_ = 0;  // the lease, while it is in
  int64_t due_ns_ = INT64_MAX;
  int64_t made_us_ = 0;  // the queue; 0: it is not known yet
  uint64_t hosts_ = 0;
  int64_t renewed_ns_ = 0;
  uint64_t reaped_ = 0;
};

}  // namespace penstock::queue
