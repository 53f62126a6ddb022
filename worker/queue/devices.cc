#include "worker/queue/devices.h"

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "shared/base/units.h"
#include "worker/queue/log.h"
#include "worker/queue/scaling.h"

namespace penstock::queue {
namespace {

const WorkerConfig* find_by_name(const std::vector<WorkerConfig>& processes,
                                 std::string_view name) {
  const auto found = std::find_if(processes.begin(), processes.end(),
                                  [&](const WorkerConfig& each) { return each.name == name; });
  return found == processes.end() ? nullptr : &*found;
}

bool lists(const WorkerConfig& worker, std::string_view device) {
  return std::find(worker.devices.begin(), worker.devices.end(), device) != worker.devices.end();
}

// Where our own environment says which devices there are, numbers count those.
bool numbers_are_the_drivers() { return std::getenv("CUDA_VISIBLE_DEVICES") == nullptr; }

std::string worker_of(const WorkerConfig& process) {
  return std::string(Scaling::worker_of(process.name));
}

}  // namespace

bool Devices::is_shared(std::string_view device) { return device != "auto" && device != "cpu"; }

std::string Devices::key_of(const WorkerConfig& process) {
  return is_shared(process.device) ? process.device : process.device + " of " + worker_of(process);
}

Device& Devices::get(const std::string& key) {
  Device& device = devices_[key];
  device.id = key;
  device.budget.name = "device " + key;
  return device;
}

const Device* Devices::find(const WorkerConfig& process) const {
  const auto found = devices_.find(key_of(process));
  return found == devices_.end() ? nullptr : &found->second;
}

bool Devices::is_out(const std::string& device) const {
  const auto found = devices_.find(device);
  return found != devices_.end() && found->second.out;
}

// One device may be named by its number and by its UUID: then by its number.
std::string Devices::same(const std::string& id) const {
  const auto found = std::find_if(seen_.begin(), seen_.end(), [&](const DeviceState& each) {
    return !each.parent && !each.uuid.empty() && each.uuid == id;
  });
  return found == seen_.end() || !numbers_are_the_drivers() ? id : found->label();
}

// Where a process may be placed: on those of its devices that are good, if any is.
std::vector<std::string> Devices::candidates(const WorkerConfig& process) const {
  std::vector<std::string> all;
  if (process.devices.front() == "auto" && process.may_use_a_gpu() && !gpus_.empty()) {
    all = gpus_;
  } else {
    for (const std::string& device : process.devices) {
      all.push_back(same(device));
    }
  }
  std::vector<std::string> good;
  std::copy_if(all.begin(), all.end(), std::back_inserter(good),
               [&](const std::string& device) { return !is_out(device); });
  return good.empty() ? all : good;
}

// Each process goes where the fewest of its worker are, then where the fewest slots are taken, then
// to the one that is listed first. One that runs stays, unless its device is out, is not listed any
// more, or has more than its part of the worker's processes.
void Devices::place(const Config& config, const std::vector<WorkerConfig>& running,
                    std::vector<WorkerConfig>& processes) {
  workers_ = config.workers;
  struct Load {
    uint32_t slots = 0;                         // of all that were placed there
    std::map<std::string, uint32_t> processes;  // of each worker
  };
  std::map<std::string, Load> loads;
  const auto put = [&](WorkerConfig& process, const std::string& device) {
    process.device = device;
    loads[device].slots += process.slots;
    ++loads[device].processes[worker_of(process)];
  };
  const auto count = [&](const WorkerConfig& process) {
    return std::count_if(processes.begin(), processes.end(), [&](const WorkerConfig& each) {
      return worker_of(each) == worker_of(process);
    });
  };
  std::vector<WorkerConfig*> homeless;
  for (WorkerConfig& process : processes) {
    const std::vector<std::string> good = candidates(process);
    const WorkerConfig* const lives = find_by_name(running, process.name);
    const auto part = (count(process) + good.size() - 1) / good.size();
    const bool stays = lives != nullptr &&
                       std::find(good.begin(), good.end(), lives->device) != good.end() &&
                       loads[lives->device].processes[worker_of(process)] < part;
    if (stays) {
      put(process, lives->device);
    } else {
      homeless.push_back(&process);
    }
  }
  for (WorkerConfig* const process : homeless) {
    const std::vector<std::string> good = candidates(*process);
    put(*process, *std::min_element(good.begin(), good.end(), [&](const auto& a, const auto& b) {
      const std::string worker = worker_of(*process);
      return std::pair(loads[a].processes[worker], loads[a].slots) <
             std::pair(loads[b].processes[worker], loads[b].slots);
    }));
  }
  bound(config, processes);
  share_memory(processes);
}

// The bounds of devices and of the workers on them.
void Devices::bound(const Config& config, const std::vector<WorkerConfig>& processes) {
  for (auto& [key, device] : devices_) {
    std::erase_if(device.shares, [](const auto& share) { return share.second.tenants == 0; });
  }
  std::erase_if(devices_, [](const auto& each) {
    return each.second.budget.tenants == 0 && !each.second.out;
  });
  for (const WorkerConfig& process : processes) {
    if (process.slots == 0) {
      continue;  // it is stopped
    }
    Device& device = get(key_of(process));
    const WorkerConfig& worker = *find_by_name(config.workers, worker_of(process));
    Budget& share = device.shares[worker.name];
    share.name = "worker " + worker.name;
    share.parent = &device.budget;
    share.slots = worker.slots;
    share.memory_bytes = worker.memory_bytes;
  }
  for (auto& [key, device] : devices_) {
    device.budget.slots = 0;
    device.budget.memory_bytes = 0;
    for (const WorkerConfig& worker : config.workers) {
      if (device.shares.contains(worker.name) || lists(worker, key)) {  // also where it is not now
        device.budget.slots = std::max(device.budget.slots, worker.slots);
        device.budget.memory_bytes = std::max(device.budget.memory_bytes, worker.memory_bytes);
      }
    }
    const auto said = std::find_if(config.devices.begin(), config.devices.end(),
                                   [&](const DeviceConfig& each) { return same(each.id) == key; });
    if (said != config.devices.end() && said->slots > 0) {
      device.budget.slots = said->slots;
    }
    if (said != config.devices.end() && said->memory_bytes > 0) {
      device.budget.memory_bytes = said->memory_bytes;
    }
  }
}

// A process that takes its memory when it starts gets its part of its worker's; of the device's, if
// all of them together would be more. The others may each use all there is: it is granted job by
// job.
void Devices::share_memory(std::vector<WorkerConfig>& processes) const {
  const auto same_device = [](const WorkerConfig& a, const WorkerConfig& b) {
    return key_of(a) == key_of(b);
  };
  const auto wanted = [&](const WorkerConfig& process) {
    const auto others = std::count_if(processes.begin(), processes.end(), [&](const auto& each) {
      return worker_of(each) == worker_of(process) && same_device(each, process);
    });
    return find_by_name(workers_, worker_of(process))->memory_bytes / std::max<int64_t>(1, others);
  };
  std::vector<int64_t> parts(processes.size());
  for (size_t i = 0; i < processes.size(); ++i) {
    const WorkerConfig& process = processes[i];
    const Device* const device = find(process);
    const int64_t bound = device == nullptr ? 0 : device->budget.memory_bytes;
    if (!process.reserves_memory()) {
      parts[i] = bound == 0                  ? process.memory_bytes
                 : process.memory_bytes == 0 ? bound
                                             : std::min(bound, process.memory_bytes);
      continue;
    }
    int64_t all = 0;
    for (const WorkerConfig& each : processes) {
      all += each.reserves_memory() && same_device(each, process) ? wanted(each) : 0;
    }
    const int64_t part = wanted(process);
    parts[i] = bound > 0 && all > bound
                   ? static_cast<int64_t>(static_cast<double>(part) / static_cast<double>(all) *
                                          static_cast<double>(bound))
                   : part;
  }
  for (size_t i = 0; i < processes.size(); ++i) {
    processes[i].memory_bytes = processes[i].slots == 0 ? 0 : parts[i];
  }
}

std::unique_ptr<Tenant> Devices::seat(const WorkerConfig& process) {
  Device& device = devices_.at(key_of(process));
  auto tenant = std::make_unique<Tenant>(device.shares.at(worker_of(process)), device.claims);
  if (process.reserves_memory()) {
    tenant->reserve(process.memory_bytes);
  }
  return tenant;
}

bool Devices::can_start(const WorkerConfig& process) const {
  const Device* const device = find(process);
  if (device == nullptr || device->out ||
      (!known_ && process.device == "auto" && process.may_use_a_gpu())) {
    return false;
  }
  const auto share = device->shares.find(worker_of(process));
  return share != device->shares.end() &&
         (!process.reserves_memory() || share->second.has_room(process.memory_bytes));
}

void Devices::observe(const std::vector<DeviceState>& seen, bool known, int64_t now_ns) {
  seen_ = seen;
  std::vector<std::string> gpus;
  for (const DeviceState& state : seen_) {
    const bool sliced = std::any_of(seen_.begin(), seen_.end(), [&](const DeviceState& each) {
      return each.parent && *each.parent == state.index;
    });
    if (numbers_are_the_drivers() && (state.parent || !sliced)) {
      gpus.push_back(state.parent ? state.uuid : state.label());
    }
  }
  const bool changed = gpus != gpus_ || known != known_;
  gpus_ = std::move(gpus);
  known_ = known;
  compare_with_seen(now_ns);
  if (changed && on_change) {
    on_change();
  }
}

// Takes out what the driver finds bad, and has what it no longer does checked.
void Devices::compare_with_seen(int64_t now_ns) {
  for (const DeviceState& state : seen_) {
    for (auto& [key, device] : devices_) {
      const bool is_it =
          key == state.uuid || (numbers_are_the_drivers() && !state.parent && key == state.label());
      if (!is_it || device.watched_bad == !state.healthy()) {
        continue;
      }
      device.watched_bad = !state.healthy();
      if (device.watched_bad) {
        take_out(device, std::string(name_of(state.health)) + ": " + state.message, now_ns);
      } else if (device.checker == 0) {
        device.check_ns = now_ns;
      }
    }
  }
}

void Devices::fault(const WorkerConfig& process, const std::string& why, int64_t now_ns) {
  const auto found = devices_.find(key_of(process));
  if (found != devices_.end() && !found->second.out) {
    take_out(found->second, why, now_ns);
  }
}

void Devices::take_out(Device& device, const std::string& why, int64_t now_ns) {
  const int64_t delay_ns = device.backoff.after(device.good_ns == 0 ? 0 : now_ns - device.good_ns);
  device.fault = device.out ? device.fault : why;  // what it was taken out for
  device.check_ns = device.watched_bad ? INT64_MAX : now_ns + delay_ns;
  log(Level::kError, "device " + device.id + (device.out ? " stays out: " : " is taken out: ") +
                         why +
                         (device.watched_bad ? "" : "; checked in " + format_duration(delay_ns)));
  const bool changed = !device.out;
  device.out = true;
  if (changed && on_change) {
    on_change();
  }
}

void Devices::check(Device& device, int64_t now_ns) {
  const auto user = std::find_if(workers_.begin(), workers_.end(), [&](const auto& worker) {
    return device.shares.contains(worker.name) || lists(worker, device.id);
  });
  if (user == workers_.end()) {  // nobody would run there any more
    device.out = false;
    device.check_ns = INT64_MAX;
    return;
  }
  auto checker = check_(*user, is_shared(device.id) ? device.id : user->devices.front());
  if (!checker) {
    return take_out(device, checker.error().message, now_ns);
  }
  device.checker = *checker;
  device.check_ns = now_ns + kCheckTimeoutNs;
}

void Devices::advance_to(int64_t now_ns) {
  for (auto& [key, device] : devices_) {
    if (device.check_ns > now_ns) {
      continue;
    }
    if (device.checker == 0) {
      check(device, now_ns);
    } else {
      device.check_ns = INT64_MAX;
      ::kill(device.checker, SIGKILL);  // reaped() comes
    }
  }
}

int64_t Devices::next_event() const {
  int64_t next_ns = INT64_MAX;
  for (const auto& [key, device] : devices_) {
    next_ns = std::min(next_ns, device.check_ns);
  }
  return next_ns;
}

void Devices::reap(int64_t now_ns) {
  for (auto& [key, device] : devices_) {
    int status = 0;
    if (device.checker > 0 && ::waitpid(device.checker, &status, WNOHANG) == device.checker) {
      return checked(device, status, now_ns);  // devices_ may be others from here on
    }
  }
}

void Devices::checked(Device& device, int status, int64_t now_ns) {
  const bool hung = device.check_ns == INT64_MAX;
  device.checker = 0;
  device.check_ns = INT64_MAX;
  if (hung || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return take_out(device, hung ? "its check hung" : "its check failed", now_ns);
  }
  device.out = false;
  device.good_ns = now_ns;
  log(Level::kInfo, "device " + device.id + " passed its check, and is used again");
  if (on_change) {
    on_change();
  }
}

void Devices::shut_down() {
  for (auto& [key, device] : devices_) {
    if (device.checker != 0) {
      ::kill(device.checker, SIGKILL);
    }
  }
}

}  // namespace penstock::queue
