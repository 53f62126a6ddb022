// SharedTelling: the ends of jobs that hosts share are told by whichever host takes them from Redis
// (shared_order/endings.h): to their owners' URLs as Webhooks do it, to the operator's hooks as
// Notices do, and to the feed (event_feed.h). What Redis has to hear of a try is said again until
// it was answered, while the lease lasts.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "shared/base/event_loop.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/jobs/event_feed.h"
#include "worker/queue/webhooks/notices.h"
#include "worker/queue/webhooks/webhooks.h"

namespace penstock::queue {

class SharedTelling final : EventLoop::Handler {
 public:
  // In memory; what finds no room there comes again when its lease has ended.
  static constexpr Webhooks::Bounds kBounds{.all = 4096, .of_owner = 512, .page = 64};
  static constexpr int64_t kEveryMs = 1000;  // it is looked what is due

  // All live longer.
  static Result<std::unique_ptr<SharedTelling>> open(Dispatcher& dispatcher, EventLoop& loop,
                                                     SharedJobs& shared, const Config& config);
  ~SharedTelling() override;
  SharedTelling(const SharedTelling&) = delete;
  SharedTelling& operator=(const SharedTelling&) = delete;

  // An Error says what is wrong, and webhooks go on as before.
  Status apply(const Config& config);
  const Webhooks& webhooks() const { return webhooks_; }
  const Notices& notices() const { return notices_; }

  void advance_to(int64_t now_ns, int64_t now_ms);
  int64_t next_event() const;
  void reap() { notices_.reap(); }
  // Whether nothing would be lost with this process where no queue is shared.
  bool settled() const { return feed_.settled(); }

 private:
  struct Lease {
    SharedQueue* queue = nullptr;
    Endings::Taken ending;
    int64_t taken_ns = 0;
  };
  using Leases = std::unordered_map<std::string, Lease>;
  struct Page {
    std::vector<Lease> leases;
    std::vector<std::string> gone;
    int64_t in_ms = kEveryMs;  // when to look again
    uint64_t all = 0;
    size_t missing = 0;  // answers
  };
  // What Redis is to hear.
  struct Said {
    SharedQueue* queue;
    std::string kind;
    Endings::Taken ending;
    int64_t after_us;
    Endings::Outcome outcome;
    std::string gone;
    std::function<void()> done;
    int64_t until_ns;
    bool asking = false;
  };

  SharedTelling(Dispatcher& dispatcher, EventLoop& loop, SharedJobs& shared);
  void on_events(uint32_t) override;  // of the webhooks' sender

  void take(const std::string& kind, size_t most, int64_t lease_us, size_t bytes,
            const std::function<void(Page&)>& then);
  void say(Said said);
  void send(std::list<Said>::iterator said);

  void due(const DueQuery& query, const std::function<void(DuePage)>& told);
  void message(const JobId& id, const std::function<void(std::optional<Webhooks::Message>)>& told);
  void tried(const JobId& id, uint32_t tries, int64_t due_ms, Webhooks::Fate fate);
  void due_notices(const NoticeQuery& query, const std::function<void(NoticePage)>& told);
  void noticed(const DueNotice& notice, uint32_t tries, int64_t due_ms,
               std::function<void()> on_done);
  size_t under_way(const std::string& hook) const;
  void sweep(SharedQueue& queue);

  Dispatcher& dispatcher_;
  EventLoop& loop_;
  SharedJobs& shared_;
  Webhooks webhooks_;
  Notices notices_;
  EventFeed feed_;
  std::unordered_map<std::string, int64_t> hook_leases_us_;
  std::vector<HookConfig> hooks_;
  Leases urls_;                                                        // by id
  std::map<std::pair<std::string, std::string>, Lease> notices_held_;  // by hook and id
  std::list<Said> said_;
  std::string gone_;  // the URL that has just said so
  int64_t now_ns_ = 0;
  int64_t retry_ns_ = INT64_MAX;
  int64_t sweep_ns_ = 0;
};

}  // namespace penstock::queue
