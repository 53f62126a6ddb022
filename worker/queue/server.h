// Server: one event loop that joins the listener, the sessions, the dispatcher and the supervisor.
//
// A turn of the loop: tell whoever is ready (after a stall: until nobody is any more); tell whose
// connection closed; push the time into dispatcher and supervisor; publish the status page; write
// everything that was gathered.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "shared/base/event_loop.h"
#include "shared/base/fd.h"
#include "shared/base/log_bound.h"
#include "shared/base/result.h"
#include "worker/queue/api/callers.h"
#include "worker/queue/api/intake.h"
#include "worker/queue/api/jobs_api.h"
#include "worker/queue/api/operator_api.h"
#include "worker/queue/api/standing_orders.h"
#include "worker/queue/care/secret_files.h"
#include "worker/queue/challenges/provider_checks.h"
#include "worker/queue/clock/awake_clock.h"
#include "worker/queue/clock/clock_doubt.h"
#include "worker/queue/config/config.h"
#include "worker/queue/devices/watch.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/jobs/shared_telling.h"
#include "worker/queue/link/connection.h"
#include "worker/queue/link/listener.h"
#include "worker/queue/link/roles.h"
#include "worker/queue/link/service_manager.h"
#include "worker/queue/publish/history.h"
#include "worker/queue/publish/publisher.h"
#include "worker/queue/store/store.h"
#include "worker/queue/text/log.h"
#include "worker/queue/traces/exporter.h"
#include "worker/queue/upgrade.h"
#include "worker/queue/webhooks/notices.h"
#include "worker/queue/webhooks/webhooks.h"
#include "worker/queue/workers/autoscaler.h"
#include "worker/queue/workers/supervisor.h"

namespace penstock::queue {

class Server final {
 public:
  // Listens; the workers are started by run(). `config_path` is read again on HUP. `record`: what
  // an earlier penstockd hands over, if it is valid.
  static Result<std::unique_ptr<Server>> open(Config config, std::string config_path,
                                              Invocation invocation, const MappedRecord& record);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Serves until TERM or INT, then drains. Returns the exit status.
  int run();

 private:
  // Calls a member function of the server when a descriptor is ready.
  class Watch final : public EventLoop::Handler {
   public:
    Watch(Server& server, void (Server::*told)()) : server_(server), told_(told) {}
    void on_events(uint32_t) override { (server_.*told_)(); }

   private:
    Server& server_;
    void (Server::*told_)();
  };

  Server(Config config, std::string config_path, ServiceManager manager, EventLoop loop,
         Listener listener, Publisher publisher, Fd signals, std::unique_ptr<Store> store,
         Roles roles);

  Status recover(JobsHandOver* jobs_taken, const MappedRecord& handed_over);
  // Giving the place to the next penstockd, and taking it from the last (server_upgrade.cc):
  void order_upgrade(Waiter* waiter, bool dry);
  void successor_said(Result<SuccessorSays> says);
  std::string why_not(const SuccessorSays& says) const;
  void answer_upgrade(Waiter& waiter, uint64_t status, const std::string& why);
  void refuse_upgrade(uint64_t status, const std::string& why);
  void advance_upgrade(int64_t now_ns);
  bool settled();
  std::vector<std::string> not_kept() const;
  std::string upgrade_json(const SuccessorSays& says) const;
  Status hand_over();
  void write_record(RecordWriter& record);
  Status keep_over_exec(bool keep);
  void begin_anew(const CarriedBegin& begin);
  void read_jobs(const MappedRecord& record, JobsHandOver& jobs);
  Status take_over(const MappedRecord& record, JobsHandOver& jobs);
  void end_strangers();
  void reap_strangers();
  void keep_shared(Config& fresh) const;
  Status recover_orders();
  void open_notices();
  void tell_quota(const wire::QuotaNotice& quota);
  void apply_ledger(const LedgerConfig& ledger);
  void tell_store_done();
  void tell_webhooks();
  void ask_message(const JobId& id, std::function<void(std::optional<Webhooks::Message>)> told);
  void turn();
  void hear();
  int64_t next_event() const;
  std::string changes_json() const;
  void read_signals();
  void reload();
  bool apply_new_config();  // false: something in it could not be used
  void tell_changes(const Config& fresh);
  void stop();
  void advance_stop(int64_t now_ns);
  void publish(int64_t now_ns);
  void note_health(int64_t now_ns);
  void doubt_clock();
  void sweep(int64_t now_ns);

  std::string status_json();
  std::string status_line() const;

  Config config_;
  std::string config_path_;
  LogTurns log_turns_;  // the last to go
  ServiceManager manager_;
  EventLoop loop_;
  Publisher publisher_;
  Fd signals_;
  Watch signal_watch_{*this, &Server::read_signals};
  Watch store_watch_{*this, &Server::tell_store_done};
  Watch webhook_watch_{*this, &Server::tell_webhooks};
  AwakeClock clock_;
  ConnectionLoop connections_;
  std::unique_ptr<Store> store_;  // nullptr: no jobs are promised
  Dispatcher dispatcher_;
  Intake intake_;
  JobsApi jobs_api_{dispatcher_, intake_};
  std::unique_ptr<Webhooks> webhooks_;  // nullptr: as there is no store
  std::unique_ptr<Notices> notices_;    // likewise
  Supervisor supervisor_;
  Autoscaler autoscaler_{dispatcher_, supervisor_};
  DeviceWatch device_watch_{connections_};
  bool devices_changed_ = false;
  bool devices_known_ = false;
  std::unique_ptr<SharedJobs> shared_;      // nullptr: no queue is shared
  std::unique_ptr<SharedTelling> telling_;  // likewise
  StandingOrders orders_{store_.get()};
  OperatorApi operator_api_{dispatcher_, jobs_api_, supervisor_, orders_};
  ProviderChecks checks_{loop_};
  SpanExporter spans_;
  Handlers handlers_{dispatcher_, intake_, jobs_api_, &operator_api_, &checks_};
  Callers callers_;
  LogBound quotas_told_{1000, 10};
  SecretWatch secrets_;
  History history_;
  int64_t start_ns_;
  int64_t turned_ns_ = 0;  // the last turn's time
  int64_t sweep_due_ns_ = 0;
  std::optional<ClockDoubt> clock_doubt_;  // until the time of day is believed
  bool state_broken_ = false;              // as was last said in the log
  uint64_t write_errors_ = 0;              // that were seen, the last of them at:
  int64_t write_error_ns_ = 0;
  enum class Phase : uint8_t { kServing, kFinishing, kStopping, kOver } phase_ = Phase::kServing;
  int64_t phase_ends_ns_ = INT64_MAX;
  Invocation invocation_;
  Upgrade upgrade_;
  std::vector<Child> strangers_;  // children of an earlier life that nobody here knows
};

}  // namespace penstock::queue
