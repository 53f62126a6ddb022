// DeviceWatch: what is known of this host's GPUs, and the process that looks at them.
//
// The driver may hang or crash with a wedged GPU, so penstockd never calls it. It starts
// `penstock-worker --watch-devices`, which tells of all devices once a second. When that process
// falls silent, it is killed and replaced. The queue goes on meanwhile: the health of devices stays
// as it was last seen, and their figures are not known.
//
//                spawn            DEVICES                 reaped and socket read to its end
//   waiting ──────────▶ running ───────────▶ watching ──────────────────────────────────▶ waiting
//      ▲                   └── no driver: it says so and exits; looked for again after kLookAgainNs
//      └────────── after a back-off that doubles with each failure
//
// Time is pushed in by advance_to(); child exits by reap().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "shared/base/restart_backoff.h"
#include "shared/wire/device_messages.h"
#include "worker/queue/config/config.h"
#include "worker/queue/link/connection.h"
#include "worker/queue/process/child.h"

namespace penstock::queue {

// One GPU, or one slice of a GPU that is divided (MIG).
struct DeviceState {
  uint32_t index = 0;              // as the driver counts: GPUs, or the slices of one
  std::optional<uint32_t> parent;  // a slice: its GPU's index
  std::string uuid;                // "GPU-…", "MIG-…"; empty: it could never be asked
  std::string name;                // "NVIDIA H100 80GB HBM3"
  uint64_t known = 0;              // of wire::DeviceFigure: which of the next are
  uint64_t utilization_percent = 0;
  uint64_t memory_used_bytes = 0;
  uint64_t memory_total_bytes = 0;
  uint64_t temperature_celsius = 0;
  uint64_t power_mw = 0;
  wire::DeviceHealth health = wire::DeviceHealth::kGood;
  std::string message;  // what is wrong with it; of one that is good, what is to be known

  bool healthy() const { return health == wire::DeviceHealth::kGood; }
  // "0"; of a slice "0:1", its GPU first.
  std::string label() const;
};
// "good", "lost", "reset required", "broken memory", "unreadable".
const char* name_of(wire::DeviceHealth health);

class DeviceWatch {
 public:
  static constexpr size_t kMaxDevices = 256;
  static constexpr size_t kMaxTextBytes = 95;      // of a uuid or a name
  static constexpr size_t kMaxMessageBytes = 300;  // what is longer is cut
  // Before the first round the driver may have to wake every GPU.
  static constexpr int64_t kFirstRoundNs = 60 * kNsPerSec;
  static constexpr int64_t kLookAgainNs = 60 * kNsPerSec;

  // `connections` must outlive this.
  explicit DeviceWatch(ConnectionLoop& connections);
  ~DeviceWatch();  // its process is killed

  // Called when devices came, went or changed in health, or when watching them began or ended.
  std::function<void()> on_change;

  // Devices are watched while a worker of the configuration may use one, or where $PENSTOCK_NVML
  // names a library to ask.
  void apply(const Config& config);
  void stop();

  void reap();  // SIGCHLD came
  void advance_to(int64_t now_ns);
  int64_t next_event() const;

  // What the last round told: GPUs in order, each followed by its slices.
  const std::vector<DeviceState>& devices() const { return devices_; }
  bool wanted() const { return wanted_; }
  bool watching() const { return watching_since_ns_ != 0; }
  // Whether devices() is all there is to know by now, be it that there are none.
  bool known() const { return !wanted_ || watching() || !trouble_.empty(); }
  // Why devices are not watched, or there are none; or empty.
  const std::string& trouble() const { return trouble_; }

 private:
  class Session;

  void start(int64_t now_ns);
  void kill(const std::string& why);
  void heard();
  void round(std::vector<DeviceState> devices, std::string_view message);
  void closed(std::string last_words);
  void settle();
  void lose_sight();
  void tell_changes(const std::vector<DeviceState>& now) const;
  int64_t due_ns() const;

  ConnectionLoop& connections_;
  std::string binary_;
  int64_t patience_ns_ = 0;
  bool wanted_ = false;
  bool running_ = false;  // a process, or a socket that is not read to its end
  Child child_;
  std::unique_ptr<Session> session_;
  int64_t start_ns_ = 0;           // not running: the next start
  int64_t kill_ns_ = INT64_MAX;    // running: it is killed then
  int64_t watching_since_ns_ = 0;  // 0: no round has come from this process, or no more do
  int64_t watched_ns_ = 0;         // it was watching for so long
  bool no_driver_ = false;         // as this process said
  RestartBackoff backoff_;
  std::vector<DeviceState> devices_;
  std::string trouble_;
  std::string ended_;  // why this process has ended, or is to
  std::string told_;   // of trouble_, in the log
};

}  // namespace penstock::queue
