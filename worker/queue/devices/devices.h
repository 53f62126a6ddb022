// Devices: what workers run on, how much of it they may use, and which of it can be used.
//
// A device that is named ("0", "GPU-…", "MIG-…") is one device for all workers. Together they keep
// within its bounds of slots and memory. A bound is the largest of its workers', or what `devices:`
// says. A worker that names no device (`auto` where no GPU is known, `cpu`) has one of its own.
//
//            fault, or a check that failed                     check passed
//   good ───────────────────────────────▶ out ──back-off──▶ checking ─────────▶ good
//                                          ▲                   │
//                                          └─── failed, hung ──┘
//
// While a device is out, no process is started on it; processes that run there go on. The check is
// a process of its own (penstock-worker --check-device), as a device may hang the process that asks
// it.
//
// Workers die with penstockd, but not at once. They inherit a lock, one for each device. The next
// penstockd starts no worker there before the lock is free: so two generations never share a
// device.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/restart_backoff.h"
#include "worker/queue/bound/budget.h"
#include "worker/queue/config/config.h"
#include "worker/queue/devices/watch.h"
#include "worker/queue/handover/record.h"
#include "worker/queue/process/child.h"

namespace penstock::queue {

struct Device {
  std::string id;  // "0"; of a worker that names none: "cpu of demo"
  Budget budget;
  std::map<std::string, Budget> shares;  // by worker, of those that were ever here
  Claims claims;

  bool out = false;
  bool check_hung = false;
  bool watched_bad = false;  // the driver says so: no check before it says otherwise
  Fd lock;                   // inherited by what runs there; valid once no earlier penstockd's does
  int64_t lock_ns = 0;       // when it is tried again; 0: it was not tried yet
  std::string fault;         // why it was last taken out
  int64_t check_ns = INT64_MAX;  // when it is checked, or the check is given up
  Child checker;                 // lives: a check is under way
  RestartBackoff backoff;
  int64_t good_ns = 0;  // since when; 0: since the beginning
};

class Devices {
 public:
  static constexpr int64_t kCheckTimeoutNs = 60 * kNsPerSec;

  // Called when a device is taken out, or is back. It must not change anything here at once.
  std::function<void()> on_change;

  // How a device is checked, on behalf of a worker that would run there. The process inherits
  // `lock`.
  using Command =
      std::function<Result<Child>(const WorkerConfig& worker, const std::string& id, int lock)>;
  // The names of the lock files begin with `locks`; they are made and stay. Empty: there are no
  // locks.
  explicit Devices(Command check, std::string locks = {})
      : check_(std::move(check)), locks_(std::move(locks)) {}

  // Chooses a device for each process, and sets the bounds. `running` are the processes that exist:
  // they stay where they are if that is as good. Fills in device, slots and memory.
  void place(const Config& config, const std::vector<WorkerConfig>& running,
             std::vector<WorkerConfig>& processes, int64_t now_ns);
  // The seat for a process that is about to be started. REQUIRES: it was placed.
  std::unique_ptr<Seat> seat(const WorkerConfig& process);
  // Whether its device can take it now: it is not out, and has the memory the process reserves.
  bool can_start(const WorkerConfig& process) const;

  // What the driver says of this host's devices. `known`: that is all there is to know by now;
  // before, no process that would take any GPU is started. A device that the driver finds bad is
  // out.
  void observe(const std::vector<DeviceState>& seen, bool known, int64_t now_ns);

  void compare_with_seen(int64_t now_ns);  // again, for devices that were placed on meanwhile

  // A process found the device faulty.
  void fault(const WorkerConfig& process, const std::string& why, int64_t now_ns);

  void advance_to(int64_t now_ns);
  int64_t next_event() const;
  // The lock that a process there inherits; -1: none. REQUIRES: it was placed.
  int lock_of(const WorkerConfig& process) const;
  // Grants what fits by now, after place().
  void advance_claims();
  // Why can_start() says no: "device 0 is out: ..."; or empty.
  std::string waits_for(const WorkerConfig& process) const;
  // When its device is looked at again, if it is out: INT64_MAX: when the driver says otherwise.
  int64_t out_until_ns(const WorkerConfig& process) const;
  // Whether any `slots: auto` came to another number since this was last asked.
  bool adapted(int64_t now_ns);
  void reap(int64_t now_ns);  // SIGCHLD came
  // As the next penstockd takes them over (devices_hand_over.cc): locks, what is out, and what the
  // driver said; and each process's place, before its seat().
  void hand_over(RecordWriter& record) const;
  void hand_over_claims(RecordWriter& record,
                        const std::function<std::string_view(const Seat&)>& worker_of) const;
  bool keep_over_exec(bool keep) const;  // false: some lock cannot be
  void take_over(const CarriedLock& lock, int64_t now_ns);
  void take_over(const CarriedDevice& device);
  void take_over(const WorkerConfig& process);
  // Checks under way are ended.
  void shut_down();

  const std::map<std::string, Device>& all() const { return devices_; }
  const Device* find(const WorkerConfig& process) const;

 private:
  static std::string key_of(const WorkerConfig& process);
  Device& get(const std::string& key);
  void bound(const Config& config, const std::vector<WorkerConfig>& processes, int64_t now_ns);
  void share_memory(std::vector<WorkerConfig>& processes);
  bool is_out(const std::string& device) const;
  std::vector<std::string> candidates(const WorkerConfig& process) const;
  std::vector<std::string> good_ones(const std::vector<std::string>& all) const;
  std::string same(const std::string& id) const;
  void take_out(Device& device, const std::string& why, int64_t now_ns);
  void check(Device& device, int64_t now_ns);
  void take_lock(Device& device, int64_t now_ns);
  void on_checked(Device& device, int64_t now_ns);

  Command check_;
  std::string locks_;
  std::map<std::string, Device> devices_;
  std::vector<WorkerConfig> workers_;  // as configured
  std::vector<DeviceState> seen_;
  std::vector<std::string> gpus_;  // that `auto` may choose from
  bool known_ = true;
  bool stopping_ = false;
};

}  // namespace penstock::queue
