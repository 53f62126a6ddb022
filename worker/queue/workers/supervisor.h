// Supervisor: keeps the configured workers alive.
//
//               spawn          TAKE                       process reaped and socket read to its end
//   kWaiting ──────────▶ kStarting ─────▶ kReady ─────────────────────────────▶ kWaiting | (gone)
//      ▲                                    │ reload, shutdown: DRAIN                  │
//      │                                    └──────▶ kDraining ───────────────────────▶┤
//      └──────────── after a back-off that doubles with each failure ◀─────────────────┘
//
// A worker is killed when it says nothing for heartbeat_timeout, is in one step of its engine for
// longer than step_timeout, does not get ready within start_timeout, does not exit within
// drain_timeout of DRAIN, or lingers after its socket closed. The next process of a worker starts
// only after the last one was reaped, on a device that is not out and has the memory it reserves
// (devices.h). The jobs of a process that died go back when it is reaped. If a wedged driver keeps
// it, they go back a second after it was killed; what it uses of the device stays counted until it
// is gone.
//
// A worker that is external is not started. It is kWaiting until a process of its name connects to
// the socket, and again once that connection has ended. That process is not our child: its
// connection is closed where another would be killed.
//
// Time is pushed in by advance_to(); child exits by reap().
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/restart_backoff.h"
#include "worker/queue/config/config.h"
#include "worker/queue/config/scaled_workers.h"
#include "worker/queue/devices/devices.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/jobs/jobs_hand_over.h"
#include "worker/queue/jobs/worker_session.h"
#include "worker/queue/process/child.h"

namespace penstock::queue {

class Supervisor final : public WorkerHost {
 public:
  // Why a worker that others start is not to come back.
  static constexpr std::string_view kDrainedWords =
      "an operator has drained it, or scaled it down: start it again after `penstockctl scale`";

  struct Worker {
    enum class State : uint8_t { kWaiting, kStarting, kReady, kDraining };
    WorkerConfig config;
    State state = State::kWaiting;
    Child child;                             // its process, if we started one
    std::unique_ptr<Seat> seat;              // while there is a process
    std::unique_ptr<WorkerSession> session;  // nullptr: its jobs are back
    int64_t start_ns = 0;                    // kWaiting: then; else: when it was
    int64_t ready_ns = 0;                    // 0: not ready yet
    int64_t kill_ns = INT64_MAX;             // it is killed then; if `killed`, given up
    bool killed = false;
    bool ordered = false;  // by an order, not for anything that it or its jobs did
    uint64_t restarts = 0;
    std::string end;  // what is known of why this process ends
    std::string last_error;
    RestartBackoff backoff;
    bool retired = false;              // not started again ...
    std::optional<WorkerConfig> next;  // ... unless as this

    std::string label() const { return "worker " + config.name; }  // in the log
  };

  // All must outlive this. `locks`: see Devices.
  Supervisor(ConnectionLoop& connections, Dispatcher& dispatcher, std::string locks = {});

  // Starts, drains and replaces workers until they are those of the configuration, as scaled. The
  // dispatcher is given it, too.
  void apply(const Config& config);

  // Runs `processes` processes of a worker: from 0 to Scaling::Worker::most(). apply() does not
  // change that as long as there is such a worker. REQUIRES: find() knows it.
  void scale(const std::string& worker, uint32_t processes);
  // The same, until an operator says otherwise.
  void autoscale(const std::string& worker, uint32_t processes);
  // Whether an operator has said how many.
  bool is_ordered(const std::string& worker) const { return scaling_.is_ordered(worker); }
  // The operator's word holds no longer.
  void forget_order(const std::string& worker);
  // How many there should be.
  uint32_t processes_of(const WorkerConfig& worker) const {
    return scaling_.of(scaling_of(worker));
  }
  // The number of an earlier life of penstockd. Call it before apply().
  void was_scaled(const std::string& worker, uint32_t processes) {
    scaling_.set(worker, processes);
  }
  // Lets its processes finish what they have, however long that takes; then it is scaled to 0.
  void drain(const std::string& worker);
  // A process that was started by others says HELLO as a worker that is external; `unread` begins
  // with that. An Error: there is no place for it; kGone: until an operator says so.
  Status attach(Fd& fd, const std::string& unread, pid_t pid);
  // The worker as configured; nullptr: there is none of that name.
  const WorkerConfig* find(std::string_view worker) const;
  const std::vector<WorkerConfig>& configured() const { return config_.workers; }

  // See Devices::observe().
  void observe(const DeviceWatch& watch);

  // Drains all; none is started again. `kill_ns`: those still alive then are killed.
  void shut_down(int64_t kill_ns);
  bool all_gone() const;

  // As the next penstockd takes them over (supervisor_hand_over.cc): processes go on. What they
  // run is said to `jobs`, which have been restored. Call announce() after apply().
  // Whether none of them is in the midst of its end.
  bool settled() const;
  void hand_over(RecordWriter& record) const;
  Status keep_over_exec(bool keep) const;
  // Reads the entry if it is of workers or devices.
  Status take_over(RecordReader& record, JobsHandOver& jobs);
  void announce();
  // Whoever has been silent until now is not to blame: nobody listened.
  void excuse_silence();
  // How many processes there are, ours or not.
  size_t processes() const;

  void reap();  // SIGCHLD came
  void advance_to(int64_t now_ns);
  int64_t next_event() const;

  const std::vector<std::unique_ptr<Worker>>& workers() const { return workers_; }
  const Devices& devices() const { return devices_; }
  int64_t now_ns() const { return connections_.now_ns(); }
  // Why a worker that waits is not started; empty: its time has not come.
  std::string waits_for(const Worker& worker) const;
  static const char* name_of(Worker::State state);

 private:
  void on_worker_ready(WorkerSession& session) override;
  void on_worker_closed(WorkerSession& session) override;

  void tell_log(const LogSettings& log);
  Status take_over(const CarriedWorker& carried, JobsHandOver& jobs);
  Worker* find_process(std::string_view name);
  Worker& worker_of(const WorkerSession& session);
  void arrange();
  bool startable(const Worker& worker) const;
  Result<Child> check_device(const WorkerConfig& worker, const std::string& device, int lock);
  void start(Worker& worker, int64_t now_ns);
  void begin(Worker& worker, Fd socket, int64_t now_ns);
  void retire(Worker& worker, int64_t kill_ns);
  void check(Worker& worker, int64_t now_ns);
  void on_exit(Worker& worker, pid_t pid);
  void lose(Worker& worker);
  void settle(Worker& worker);
  void kill(Worker& worker, const std::string& why);
  int64_t due_ns(const Worker& worker) const;
  bool is_stuck(const Worker& worker) const;

  ConnectionLoop& connections_;
  Dispatcher& dispatcher_;
  Config config_;
  Scaling scaling_;
  Devices devices_;
  bool stopping_ = false;
  bool rearrange_ = false;  // a device is out, or back
  std::string binary_;
  std::vector<std::unique_ptr<Worker>> workers_;
  struct TakenClaim {
    std::string worker;
    uint64_t number;
    int64_t bytes;
  };
  std::vector<TakenClaim> taken_claims_;  // until devices have their bounds again
};

}  // namespace penstock::queue
