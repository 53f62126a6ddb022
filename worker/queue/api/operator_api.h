// OperatorApi: what a tool may ask of penstockd, and tell it to do (CONTRACT, section 6).
//
//   GET    /status, /history
//              as for penstockctl status; the last hour (publish/history.h)
//   GET    /cluster
//              all hosts that share queues (publish/cluster_report.h)
//   GET    /orders
//              the last orders: {"orders":[{"at":1795960980,"who":"…","order":"POST /…"}]}; and
//              what reloads changed:
//              {"at":…,"who":"/etc/penstock/penstock.yaml","order":"limits.…"}
//   GET    /changes
//              what penstock.yaml changes of what runs, were it reloaded now:
//              {"file":"/etc/penstock/penstock.yaml","changes":["limits.…"],"error":null}
//   GET    /predictions
//              the last waits that were foretold, beside what came true (jobs/prediction_log.h)
//   GET    /jobs?owner=|owner_hash=&queue=&status=&limit=&after=
//              everybody's jobs that were promised
//   GET    /jobs/ID, /jobs/ID/events, /jobs/ID/result
//              as their owner sees them, and whose they are
//   DELETE /jobs/ID, /jobs/ID?purge
//              cancels; forgets one that is over, and nothing of it is kept
//   POST   /backup, GET /backup, DELETE /backup
//              begins a copy of the state in a folder of it, tells how far it is, forgets it:
//              {"state":"none|making|made|failed","folder":"…","error":null}
//   POST   /upgrade, GET /upgrade
//              the program that penstockd was started as takes its place (server_upgrade.cc); what
//              would become of that
//   GET    /usage?owner=|owner_hash=&since=&until=&model=&after=
//              the ledger, an hour's rows each, the earliest first (store/usage.h); `next` is the
//              `after` of the next page; rows of hours before `open_since` change no more
//   GET    /dead?queue=&limit=&after=
//              the dead letters
//   GET    /dead/ID
//              one, with the request that it was
//   POST   /dead/ID/requeue
//              queued as if new; its owner is not charged
//   DELETE /dead/ID
//              forgets it
//   POST   /queues/NAME/pause, /queues/NAME/resume
//              a queue that hosts share: on all of them
//   POST   /workers/NAME/drain, /workers/drain
//              ends it when its jobs are done; all of them
//   POST   /workers/NAME/scale?n=N
//              so many processes share what it may use
//
// Viewers may GET /status, /history, /cluster, /jobs, /jobs/ID and /dead: nothing that a job asks
// or answers, and nobody's orders.
//
// Each order is in the log with who gave it and what came of it (audit.h); where an Nginx's console
// did, with whom the console's location knew: that is the ASK's `owner`.
//
// `owner` is what the edge sends as the owner, in plain text. It is hashed here, and only the hash
// is shown; `owner_hash` is that, as it is shown. Answers are JSON, and refusals say what would be
// right. A queue that is paused and a worker that is scaled stay so over a reload, and over a
// restart with the same penstock.yaml (standing_orders.h).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "shared/wire/messages.h"
#include "worker/queue/api/audit.h"
#include "worker/queue/api/jobs_api.h"
#include "worker/queue/api/standing_orders.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/workers/supervisor.h"

namespace penstock::queue {

class OperatorApi {
 public:
  // So much of a dead job's request is shown.
  static constexpr size_t kMostShownBytes = 64U << 10;
  static constexpr size_t kKeptOrders = 200;

  // All must outlive this.
  OperatorApi(Dispatcher& dispatcher, JobsApi& jobs_api, Supervisor& supervisor,
              StandingOrders& orders)
      : dispatcher_(dispatcher), jobs_api_(jobs_api), supervisor_(supervisor), orders_(orders) {}

  void ask(Caller& caller, uint64_t id, const wire::Ask& ask);

  // Where the state is, from the root on; empty: there is none.
  std::string state;
  // Begins to give penstockd's place to the program that it was started as, or only asks that
  // (`dry`). It answers the waiter, which waits for it (Subscribers::ask()).
  std::function<void(Waiter&, bool dry)> upgrade;
  // A copy of the state is being made, or taken.
  bool backs_up() const { return backup_ == Backup::kMaking || backup_ == Backup::kMade; }

  // Answers GET /changes with a JSON object.
  std::function<std::string()> changes;

  // Something else than an order has changed what penstockd does.
  void note_change(std::string who, std::string what);

  // GET `path` is answered by what this makes, a JSON object, for viewers as for operators.
  void tell(std::string path, std::function<std::string()> report) {
    reports_[std::move(path)] = std::move(report);
  }
  bool is_status(const wire::Ask& ask) const {
    return ask.method == "GET" && reports_.find(ask.path) != reports_.end();
  }
  // What viewers may ask: nothing that has a request, an answer, or a part of one.
  bool is_for_viewers(const wire::Ask& ask) const;
  Audit& audit() { return audit_; }

 private:
  // Somebody's question, before it waits for anything.
  struct Asker {
    Caller& caller;
    uint64_t id;
  };
  using Path = std::vector<std::string_view>;
  struct Given {
    int64_t at_ms;
    std::string who;
    std::string text;  // "POST /queues/default/pause"
  };

  void note_order(const Caller& caller, const wire::Ask& ask);
  std::string orders_json() const;
  void about_dead(Asker asker, const Path& path, const wire::Ask& ask);
  void about_usage(Asker asker, const wire::Ask& ask);
  std::vector<uint64_t> hashes_of(std::string_view owner);
  void about_backup(Asker asker, std::string_view method);  // operator_api_backup.cc
  void about_upgrade(Asker asker, std::string_view method);
  void about_queue(Asker asker, const Path& path);
  void pause_everywhere(Asker asker, Scheduler::Queue& queue, SharedQueue& shared, bool pause);
  void about_workers(Asker asker, const Path& path, const wire::Ask& ask);
  void scale(Asker asker, const WorkerConfig& worker, std::string_view query);
  // What is done to a dead letter: of this host's, and of a queue that hosts share.
  struct Deed {
    void (OperatorApi::*here)(Waiter& waiter, const JobRecord& job);
    void (OperatorApi::*shared)(Waiter& waiter, SharedQueue& queue, const JobRecord& job);
  };
  void show(Waiter& waiter, const JobRecord& job);
  void requeue(Waiter& waiter, const JobRecord& job);
  void drop(Waiter& waiter, const JobRecord& job);
  // Finds a dead job, or says that there is none.
  void find_dead(Asker asker, std::string_view id, Deed deed);
  // operator_api_shared.cc:
  void find_shared(Waiter& waiter, const JobId& id, Deed deed);
  void show_shared(Waiter& waiter, SharedQueue& queue, const JobRecord& job);
  void requeue_shared(Waiter& waiter, SharedQueue& queue, const JobRecord& job);
  void drop_shared(Waiter& waiter, SharedQueue& queue, const JobRecord& job);
  void fail_away(Waiter& waiter);
  void fail_none(Waiter& waiter);
  void say_dead(Waiter& waiter, const JobRecord& job, std::string_view frame);
  // operator_api_replay.cc:
  struct Again {
    JobId id;
    std::string model;  // empty: the same
    std::string run;
  };
  void replay(Asker asker, std::string_view id, std::string_view asked);
  Result<JobRecord> record_again(const Again& again, const JobRecord& record,
                                 const SharedQueue* shared);
  void replay_here(Waiter& waiter, const Again& again, const JobRecord& record);
  void keep_here(Waiter& waiter, const Again& again, const JobRecord& fresh,
                 const std::string& frame);
  void replay_shared(Waiter& waiter, const Again& again);
  void add_again(Waiter& waiter, const Again& again, SharedQueue& queue, const JobRecord& record,
                 const std::string& instead_of);
  void unless_failed(Waiter& waiter, const Again& again, SharedQueue& queue,
                     const JobRecord& record, const std::string& other);
  void fail_replay(Waiter& waiter, const std::string& why);
  void fail_no_body(Waiter& waiter);
  void fail(Waiter& waiter, const wire::Failed& failed);
  void reply(Waiter& waiter, const std::string& json);

  Dispatcher& dispatcher_;
  JobsApi& jobs_api_;
  Supervisor& supervisor_;
  StandingOrders& orders_;
  std::map<std::string, std::function<std::string()>, std::less<>> reports_;
  Audit audit_;
  std::deque<Given> given_;  // the newest first
  enum class Backup : uint8_t { kNone, kMaking, kMade, kFailed } backup_ = Backup::kNone;
  std::string backup_error_;
  int64_t backup_made_ns_ = 0;
};

}  // namespace penstock::queue
