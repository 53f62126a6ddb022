// SharedJobs: the queues of a configuration that hosts share, and the Redis they are in.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/event_loop.h"
#include "shared/base/result.h"
#include "worker/queue/config/config.h"
#include "worker/queue/shared_jobs/durability.h"
#include "worker/queue/shared_jobs/large_results.h"
#include "worker/queue/shared_jobs/layouts.h"
#include "worker/queue/shared_jobs/receipt_journal.h"
#include "worker/queue/shared_jobs/redis_memory.h"
#include "worker/queue/shared_jobs/shared_queue.h"
#include "worker/queue/shared_order/redis_loop.h"

namespace penstock::queue {

class SharedJobs final : redis::Servers::User {
 public:
  static constexpr int64_t kDurabilityNs = 30 * kNsPerSec;
  static constexpr int64_t kMemoryNs = kNsPerSec;

  // nullptr: no queue is shared, and there is no feed of events. What it refers to lives longer;
  // the store may be none. `on_event` is called before the user is told of anything.
  static Result<std::unique_ptr<SharedJobs>> open(const Config& config, EventLoop& events,
                                                  std::function<void()> on_event,
                                                  SharedQueue::User& user, Store* store);
  // What this host has promised in an earlier life. Before all else. `held`: told of each job for
  // which the edge may hold something still.
  using Held = std::function<void(SharedQueue&, const JobRecord&, std::string_view receipt)>;
  Status recover(int64_t now_ms, const Held& held);
  SharedJobs(const SharedJobs&) = delete;
  SharedJobs& operator=(const SharedJobs&) = delete;

  // nullptr: that queue is not shared.
  SharedQueue* find(std::string_view queue) const;
  const std::vector<std::unique_ptr<SharedQueue>>& queues() const { return queues_; }
  // Whether Redis is reached, which one that is or was (empty: none yet), and why it is not.
  bool is_ready() const { return is_ready_; }
  const std::string& where() const { return where_; }
  const std::string& trouble() const { return trouble_; }
  redis::Servers& servers() { return servers_; }
  // How Redis keeps what is promised. It says nothing where replicas are to have that.
  const Durability& durability() const { return durability_; }
  const RedisMemory& memory() const { return memory_; }
  // How else their queues were kept.
  const Layouts& layouts() const { return layouts_; }
  // So many; 0: Redis's own disk is to have it.
  uint32_t replicas() const { return replicas_; }
  // The queues' new settings.
  void apply(const Config& config);

  // What the edge holds for jobs that were promised here.
  ReceiptJournal& receipts() { return receipts_; }
  // Where large results lie; nullptr: Redis has them all.
  LargeResults* results() const { return results_.get(); }

  // What any queue knows of the job. `then(nullptr, ...)`: none does; with trouble: it cannot be
  // known now. The same as SharedOrder::look() otherwise.
  using Found = std::function<void(SharedQueue*, SharedOrder::Answer<SharedOrder::Known>&)>;
  void look(const std::string& id, size_t most, const Found& then) {
    look_in(0, nullptr, id, most, then);
  }

  // By its own clock, see SharedQueue.
  void advance();
  void flush();
  // On the caller's clock, by which it is `now_ns`.
  int64_t next_event(int64_t now_ns) const;
  // What was given back is sent; nothing more is.
  void leave();
  // Redis has heard all of it, and nothing is on its way here.
  bool has_left() const;
  // What was said before is sent, and nothing more is heard.
  void over();

 private:
  SharedJobs(const Config& config, std::string password, EventLoop& events,
             std::function<void()> on_event, SharedQueue::User& user, Store* store);
  void on_ready(std::string_view who) noexcept override;
  void on_lost(std::string_view why) noexcept override;
  void on_hosts(uint64_t) noexcept override {}
  void look_at_durability();
  void look_at_memory();
  std::vector<std::string> newly_unreached();
  void see_reached();
  void look_in(size_t number, SharedQueue* away, const std::string& id, size_t most,
               const Found& then);
  // False: its queue is not shared any more, or it cannot be read.
  bool recall(std::string_view kept, const Held& held);

  RedisLoops loops_;
  // The connections over which replicas are waited for.
  struct Promises final : redis::Servers::User {
    void on_ready(std::string_view) noexcept override { told = false; }
    void on_lost(std::string_view why) noexcept override;
    void on_hosts(uint64_t) noexcept override {}
    bool told = false;  // that there are none
  };

  redis::Servers servers_;
  Durability durability_{servers_};
  RedisMemory memory_{servers_};
  int64_t memory_ns_ = 0;  // when it is looked at again
  Layouts layouts_{servers_, servers_.settings().prefix};
  int64_t durability_ns_ = 0;  // when it is looked at again
  Promises promises_;
  const uint32_t replicas_;
  std::unique_ptr<redis::Servers> promise_servers_;  // nullptr: Redis's disk keeps them
  Store* const store_;
  ReceiptJournal receipts_{store_};
  std::vector<std::unique_ptr<SharedQueue>> queues_;
  std::unique_ptr<LargeResults> results_;
  bool is_ready_ = false;
  std::set<std::string> told_;  // the queues of which it was said that they are not reached
  bool is_told_ = false;        // something was said since all was well
  std::string where_, trouble_;
};

// As the Scheduler and the shared order have them.
Scheduler::QueueSettings settings_of(const QueueConfig& queue);
// How long Redis knows a job of that queue that has ended.
int64_t kept_ms(const QueueConfig& queue);

}  // namespace penstock::queue
