// SharedQueue: one queue that hosts share, as one host deals with it.
//
// It says to Redis what the Dispatcher does, and to the Dispatcher what Redis says. What must reach
// Redis is kept until it was answered, and said again: jobs that come in for a second, ends and
// returns for as long as it takes. Jobs are known here by their ids alone.
//
// All times are monotonic_ns(): a lease ends while this host does not run, too.
//
//     add() ──▶ (Redis) ──serve()──▶ on_taken ──finish(), give_back()──▶ told
//                  │                    └─ on_lost: it is another's now, or over
//                  └──watch()──▶ on_position, each second
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shared/base/clock.h"
#include "shared/redis/subscription.h"
#include "worker/queue/shared_jobs/arrivals.h"
#include "worker/queue/shared_jobs/host_talk.h"
#include "worker/queue/shared_jobs/recent_ends.h"
#include "worker/queue/shared_jobs/roster.h"
#include "worker/queue/shared_jobs/shared_receipts.h"
#include "worker/queue/shared_order/endings.h"
#include "worker/queue/shared_order/membership.h"
#include "worker/queue/shared_order/shared_order.h"

namespace penstock::queue {

class SharedQueue final : Membership::User, Roster::User, redis::Subscription::Listener {
 public:
  static constexpr int64_t kIdleNs =
      kNsPerSec;  // an empty lane is asked again, if nothing is heard
  static constexpr int64_t kAwayNs = kNsPerSec;
  static constexpr int64_t kRetryNs = 100 * kNsPerMs;      // after an answer that did not come
  static constexpr int64_t kEveryNs = kNsPerSec;           // the roster, and what is watched
  static constexpr int64_t kComesBackNs = 10 * kNsPerSec;  // what was lost is announced by then
  static constexpr size_t kMostChannels = 8;               // it hears by its last names
  static constexpr size_t kMostCancels = 10'000;           // that Redis has not heard
  static constexpr size_t kMostWatched = 500;              // in one request
  static constexpr int64_t kLeastKeptMs = 60'000;  // of what has ended: its home asks for it

  class User {
   public:
    // The job is this host's to run. It may run here: Redis had lost that it was taken.
    virtual void on_taken(SharedQueue& queue, const SharedOrder::Taken& job) = 0;
    // It is not any more: it is over, or another's.
    virtual void on_lost(SharedQueue& queue, const std::string& id) = 0;
    // Of what is watched: see SharedOrder::positions().
    virtual void on_position(SharedQueue& queue, const std::string& id, int64_t position) = 0;
    // Another host asks of a job that runs here: see JobQuestions.
    virtual std::string on_asked(SharedQueue& queue, std::string_view asked) = 0;
    // What this host serves there; its name and version are known.
    virtual HostSays says(const SharedQueue& queue) const = 0;
    // How the queue stands, and what hosts serve, was heard anew.
    virtual void on_roster(SharedQueue& queue) = 0;

   protected:
    ~User() = default;
  };

  // `servers` and `user` live longer. `host`: what people call this one. Ends are kept for
  // `keep_ms`.
  SharedQueue(redis::Servers& servers, std::unique_ptr<redis::Loop> loop, User& user,
              std::string host, const Scheduler::QueueSettings& settings, int64_t keep_ms,
              const Promising& promising);
  ~SharedQueue();
  SharedQueue(const SharedQueue&) = delete;
  SharedQueue& operator=(const SharedQueue&) = delete;

  const std::string& name() const { return name_; }
  const std::string& key() const { return order_.key(); }
  SharedOrder& order() { return order_; }
  // By which it was taken here; 0: it was not, or is another's by now.
  uint64_t fence_of(const std::string& id) const {
    const auto found = held_.find(id);
    return found == held_.end() ? 0 : found->second;
  }
  void set(const Scheduler::QueueSettings& settings, int64_t keep_ms, int64_t keep_dead_ms);

  // Whether jobs can be added now. Else they are not promised.
  bool is_there() const { return secret().has_value() && order_.ready() && arrivals_.ready(); }
  // Whether it has not been there for kAwayNs, or since the start.
  bool is_away(int64_t now_ns) const { return !is_there() && now_ns - there_ns_ > kAwayNs; }
  // It has not been heard yet what hosts serve, or it is there again, and not all may have said it.
  bool settles(int64_t now_ns) const { return roster_.told_ns() == 0 || now_ns < settled_ns_; }
  // Under which all hosts hash owners and keys; nothing: Redis has not been reached yet.
  const std::optional<limit::Secret>& secret() const { return roster_.secret(); }
  const Roster& roster() const { return roster_; }
  const Membership& membership() const { return membership_; }
  const SharedOrder::Calls& calls() const { return order_.calls(); }
  // Ends, and jobs to be given back or cancelled, that Redis does not have yet.
  size_t unsent() const { return ended_.size() + returns_.size() + cancels_.size() + ending_; }

  // A job that comes in.
  using Newcomer = queue::Newcomer;
  using Outcome = Arrivals::Outcome;
  using Told = Arrivals::Told;
  void add(Newcomer newcomer, Told told) { arrivals_.add(std::move(newcomer), std::move(told)); }
  // Of the replicas that have what is promised; nullptr: Redis's own disk has it.
  const PromiseLine* promise_line() const { return arrivals_.line(); }
  // nullptr: what is promised is not kept here.
  PromiseJournal* journal() const { return arrivals_.journal(); }
  // Redis may be another, or have lost something.
  void doubt();
  // Whether a job that Redis does not know now may be there soon, as a host has promised it.
  bool may_come_back(const std::string& id) const {
    return journal() != nullptr &&
           (journal()->contains(id) || monotonic_ns() - doubted_ns_ < kComesBackNs);
  }

  // Whether jobs for workers of that model would be asked for now: it was not done just now.
  bool may_serve(const std::string& model) const;
  // Asks for up to `room` of them. REQUIRES: may_serve()
  void serve(const std::string& model, size_t room);
  // So many of them are asked for.
  size_t coming(const std::string& model) const {
    const auto asked = asking_.find(model);
    return asked == asking_.end() ? 0 : asked->second.most;
  }
  // Jobs that came to a lane here are asked for at once.
  void wake(const std::string& model);

  // The job has ended here. kEnded: by this; of one that was not taken, or is lost, never.
  // `keep_ms`: of its result; 0: as the queue has it. `how`: as SharedOrder::Finished has it.
  void finish(const std::string& id, std::string result, int64_t keep_ms, char how,
              std::function<void(SharedOrder::End)> told);
  // It goes back in line, if it was taken and not lost; if `cause`, an attempt has failed.
  void give_back(const std::string& id, uint32_t attempts, std::optional<Scheduler::Cause> cause);

  // on_position is called each second until unwatch().
  void watch(const std::string& id) { watched_.insert(id); }
  void unwatch(const std::string& id) { watched_.erase(id); }
  // on_position is called once it is over, if that is heard.
  void await_end(std::string id) { awaited_.insert(std::move(id)); }
  void forget_end(const std::string& id) { awaited_.erase(id); }

  // As SharedOrder's.
  bool look(std::string_view id, size_t most, SharedOrder::Then<SharedOrder::Known> then) {
    return order_.look(id, most, std::move(then));
  }
  bool positions(std::span<const std::string_view> ids,
                 SharedOrder::Then<std::vector<int64_t>> then) {
    return order_.positions(ids, std::move(then));
  }
  // On all hosts. kUnknown: it may be so, or become so.
  bool pause(bool paused, SharedOrder::Then<bool> then) {
    return order_.pause(paused, std::move(then));
  }
  bool cancel(std::string_view id, std::string_view result,
              SharedOrder::Then<SharedOrder::End> then, int64_t keep_ms = 0);
  // The same, said until Redis has heard it. `told`: perhaps never; `by_us`: that was its end.
  void see_cancelled(std::string_view id, std::string result, int64_t keep_ms,
                     std::function<void(bool by_us)> told = {});

  // By what name others know this host; empty: it has none now.
  const std::string& host() const { return membership_.host(); }
  // What it is to the jobs that come in here; empty: likewise.
  const std::string& home() const { return membership_.home(); }
  // What jobs answer that run here, and on other hosts.
  AnswerWriter& writer() { return talk_.writer; }
  AnswerReader& reader() { return talk_.reader; }
  JobQuestions& questions() { return talk_.questions; }
  // What is to be told of its jobs' ends, and the lists of its jobs.
  Endings& endings() { return endings_; }
  // What was charged for its jobs, where any host could settle that.
  SharedReceipts& receipts() { return receipts_; }

  void advance_to(int64_t now_ns);
  // What is to be sent is sent. After all serve() of a turn.
  void flush();
  int64_t next_event() const;
  // Takes no more. What is on its way here is given back before the host is gone, or at `over()`
  // is left to the others.
  void leave();
  bool has_left() const { return left_; }
  void over();

 private:
  struct Ended {
    std::string id, host, result;
    int64_t keep_ms;
    char how;
    uint64_t fence;
    std::function<void(SharedOrder::End)> told;
  };
  struct Asking {
    size_t most;
    bool woken = false;  // more may have come meanwhile
  };
  struct Cancel {
    std::string id, result;
    int64_t keep_ms;
    std::function<void(bool)> told;
    bool asking = false;
  };
  struct Return {
    std::string id, host;
    uint64_t fence;
    uint32_t attempts;
    std::optional<Scheduler::Cause> cause;
    bool asking = false;
  };

  void on_listening(std::string_view channel) override;
  void on_message(std::string_view channel, std::string_view text) override;
  void on_over(const std::string& id);
  void on_joined() override;
  void on_expelled(std::string_view why) override;
  void on_lost_data() override;
  HostSays says() const override;
  void on_roster() override { user_.on_roster(*this); }
  std::string kept_secret() const override;
  void keep_secret(const std::string& secret) override;
  size_t running() const override { return held_.size(); }
  bool runs(std::string_view id, uint64_t fence) const override;
  void on_held(const std::vector<SharedOrder::Held>& held) override;

  void ask(const std::string& model, size_t most);
  void served(const std::string& model, size_t most, const std::string& host,
              std::vector<Ended>& ended, SharedOrder::Answer<SharedOrder::Served>& answer);
  bool is_heard(const SharedOrder::Answer<SharedOrder::End>& end, bool& asking);
  void send_back(std::list<Return>::iterator job);
  void send_cancel(std::list<Cancel>::iterator job);
  void note_end(const std::string& id, uint64_t fence, char how, std::string result,
                int64_t keep_ms);
  void look_after_watched();
  std::string home_channel() const { return order_.key() + "c|" + membership_.home(); }
  void forget(const std::string& id, uint64_t fence);

  const std::string name_;
  User& user_;
  SharedOrder order_;
  Endings endings_;
  SharedReceipts receipts_;
  Membership membership_;
  redis::Subscription subscription_;
  HostTalk talk_;
  std::deque<std::string> channels_;  // its own, by all names that it had lately
  bool listens_at_home_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  int64_t there_ns_ = monotonic_ns();  // the last time that jobs could be added
  int64_t settled_ns_ = 0;
  int64_t doubted_ns_ = monotonic_ns();  // last
  bool leaving_ = false;
  bool left_ = false;

  Roster roster_;
  const std::string host_;
  int64_t roster_ns_ = 0;  // when next

  std::unordered_map<std::string, uint64_t> held_;  // fences of jobs that were taken
  std::deque<Ended> ended_;                         // to be sent
  size_t ending_ = 0;                               // sent, and not answered
  int64_t retry_ns_ = 0;                            // not before
  std::list<Return> returns_;
  std::list<Cancel> cancels_;
  size_t serving_ = 0;  // requests without an answer
  Arrivals arrivals_;
  RecentEnds told_ends_;
  std::map<std::string, Asking> asking_;          // models whose jobs are asked for
  std::map<std::string, int64_t> idle_until_ns_;  // where there was less than was asked for

  std::set<std::string> awaited_;
  std::set<std::string> watched_;
  std::string watched_until_;  // of these, the last that was asked for
};

}  // namespace penstock::queue
