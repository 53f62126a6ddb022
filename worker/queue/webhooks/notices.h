// Notices: tells an operator's programs and services of the ends of promised jobs (`notify`).
//
// What is to be told is on disk from the job's end until it was taken (a program that exits with 0,
// a 2xx) or given up: so each hook hears of each end at least once, whatever is killed meanwhile. A
// try that fails is made again as webhooks are (Webhooks::kSchedule), up to the hook's `tries`. Of
// each hook a bounded number is under way; the rest stays on disk. What came of a try is written
// before its place is free: so nothing is told again while the disk takes no writes. Times are
// pushed in.
//
//   on disk ──due──▶ under way ──taken──▶ (over)
//      ▲                 │ failed, or took longer than `timeout`
//      └── kSchedule ◀───┘ tries + 1
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "shared/base/event_loop.h"
#include "worker/queue/config/notify_config.h"
#include "worker/queue/store/store.h"
#include "worker/queue/text/log.h"
#include "worker/queue/webhooks/program.h"
#include "worker/queue/webhooks/sender.h"

namespace penstock::queue {

class Notices {
 public:
  // What the store is asked.
  struct Calls {
    std::function<void(const NoticeQuery&, std::function<void(NoticePage)>)> due;
    // A try was made; the next is due then (ms since 1970), or never (0). on_done: due() knows.
    std::function<void(const DueNotice&, uint32_t tries, int64_t due_ms,
                       std::function<void()> on_done)>
        tried;
    // All other hooks are gone.
    std::function<void(std::vector<std::string> names)> keep;
  };
  struct Outcomes {
    uint64_t delivered = 0;
    uint64_t retried = 0;
    uint64_t given_up = 0;
  };

  // `loop` outlives this.
  Notices(EventLoop& loop, Calls calls, uint32_t seed = std::random_device{}());
  ~Notices();  // programs that run are killed, and run anew in another life
  Notices(const Notices&) = delete;
  Notices& operator=(const Notices&) = delete;

  // What is under way goes on, unless its hook is gone or another now: then it is ended, and tried
  // anew by the other.
  void apply(const std::vector<HookConfig>& hooks);
  bool wanted() const { return !hooks_.empty(); }
  // What is to be told of such an end, for the store to keep with it.
  std::vector<Notice> of(JobStatus status, bool dead, const NoticeFields& fields,
                         const std::string& json) const;
  // The same of a quota that a key has used much of.
  std::vector<Notice> of_quota(const NoticeFields& fields, const std::string& json) const;
  // Some of that is on disk.
  void added() { look_soon(); }

  void advance_to(int64_t now_ns, int64_t now_ms);
  int64_t next_event() const;
  void reap();  // some child has ended
  const Outcomes& outcomes() const { return outcomes_; }
  // The time of day as if it had never been stepped: notices are due by it.
  int64_t steady_ms() const { return began_ms_ + now_ns_ / kNsPerMs; }

 private:
  std::vector<Notice> for_hooks(uint32_t events, const NoticeFields& fields,
                                const std::string& json) const;
  // One try.
  struct Run {
    DueNotice notice;
    std::unique_ptr<Program> program;  // nullptr: it is a POST, or over
    int64_t ends_by_ns = INT64_MAX;    // of a program
    bool late = false;                 // and was killed for that
    bool over = false;                 // which is being written
  };
  class Hook;

  void leave(const std::shared_ptr<Hook>& hook, Hook* next);
  void look_soon();
  void ask(const std::shared_ptr<Hook>& hook);
  void start(Hook& hook, DueNotice&& notice);
  void ended(Hook& hook, const JobId& id, const std::string& trouble, int64_t retry_after_s);
  void written(const std::string& name, const JobId& id);
  int64_t wait_ms(uint32_t tries, int64_t retry_after_s);

  EventLoop& loop_;
  Calls calls_;
  std::minstd_rand random_;
  std::shared_ptr<const WebhookTargets> anywhere_;
  std::map<std::string, std::shared_ptr<Hook>> hooks_;
  std::vector<std::shared_ptr<Hook>> leaving_;  // whose programs were killed, and are to be reaped
  int64_t now_ns_ = 0;
  int64_t began_ms_ = 0;
  Outcomes outcomes_;
  BoundedLog troubles_;
};

}  // namespace penstock::queue
