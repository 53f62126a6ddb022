#include "worker/queue/devices/devices.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "shared/base/units.h"
#include "worker/queue/bound/scaling.h"
#include "worker/queue/devices/visible.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

const WorkerConfig* find_by_name(const std::vector<WorkerConfig>& processes,
                                 std::string_view name) {
  const auto found = std::find_if(processes.begin(), processes.end(),
                                  [&](const WorkerConfig& each) { return each.name == name; });
  return found == processes.end() ? nullptr : &*found;
}

constexpr int64_t kTellNs = 10 * kNsPerSec;  // between two lines on the slots of a worker

std::string worker_of(const WorkerConfig& process) {
  return std::string(Scaling::worker_of(process.name));
}

}  // namespace

std::string Devices::key_of(const WorkerConfig& process) {
  return is_shared_device(process.device) ? process.device
                                          : process.device + " of " + worker_of(process);
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

// Where a process may be placed.
std::vector<std::string> Devices::candidates(const WorkerConfig& process) const {
  std::vector<std::string> all;
  if (process.devices.front() == "auto" && process.may_use_a_gpu() && !gpus_.empty()) {
    all = gpus_;
  } else {
    for (const std::string& device : process.devices) {
      all.push_back(same(device));
    }
  }
  return all;
}

std::vector<std::string> Devices::good_ones(const std::vector<std::string>& all) const {
  std::vector<std::string> good;
  std::copy_if(all.begin(), all.end(), std::back_inserter(good),
               [&](const std::string& device) { return !is_out(device); });
  return good.empty() ? all : good;
}

// Each process goes to a good device, if there is one: where the fewest of its worker are, then
// where the fewest slots are taken, then to the one that is listed first. One that runs stays,
// unless its device is out, is not listed any more, or has more than its part of the worker's
// processes. One that takes its memory when it starts does not crowd a device that has its part
// already, as all there would have to start anew with less: it waits for its own.
void Devices::place(const Config& config, const std::vector<WorkerConfig>& running,
                    std::vector<WorkerConfig>& processes, int64_t now_ns) {
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
  const auto part = [&](const WorkerConfig& process, size_t devices) {
    const auto count = std::count_if(processes.begin(), processes.end(), [&](const auto& each) {
      return worker_of(each) == worker_of(process);
    });
    return (static_cast<size_t>(count) + devices - 1) / devices;
  };
  const auto contains = [](const std::vector<std::string>& all, const std::string& device) {
    return std::find(all.begin(), all.end(), device) != all.end();
  };
  std::vector<WorkerConfig*> homeless;
  for (WorkerConfig& process : processes) {
    const std::vector<std::string> all = candidates(process);
    const std::vector<std::string> good = good_ones(all);
    const WorkerConfig* const lives = find_by_name(running, process.name);
    const std::vector<std::string>& fit = process.reserves_memory() ? all : good;
    if (lives != nullptr && contains(fit, lives->device) &&
        loads[lives->device].processes[worker_of(process)] < part(process, fit.size())) {
      put(process, lives->device);
    } else {
      homeless.push_back(&process);
    }
  }
  for (WorkerConfig* const process : homeless) {
    const std::string worker = worker_of(*process);
    const std::vector<std::string> all = candidates(*process);
    std::vector<std::string> fit = good_ones(all);
    if (process->reserves_memory() && std::all_of(fit.begin(), fit.end(), [&](const auto& device) {
          return loads[device].processes[worker] >= part(*process, all.size());
        })) {
      fit = all;
    }
    put(*process, *std::min_element(fit.begin(), fit.end(), [&](const auto& a, const auto& b) {
      return std::pair(loads[a].processes[worker], loads[a].slots) <
             std::pair(loads[b].processes[worker], loads[b].slots);
    }));
  }
  bound(config, processes, now_ns);
  share_memory(processes);
}

// The bounds of devices and of the workers on them.
void Devices::bound(const Config& config, const std::vector<WorkerConfig>& processes,
                    int64_t now_ns) {
  for (auto& [key, device] : devices_) {
    std::erase_if(device.shares, [&](const auto& share) {
      return share.second.seats == 0 && find_by_name(config.workers, share.first) == nullptr;
    });
  }
  std::erase_if(devices_, [&](const auto& each) {
    const std::string& id = each.first;
    return each.second.budget.seats == 0 && !each.second.out && each.second.shares.empty() &&
           std::none_of(workers_.begin(), workers_.end(), [&](const auto& worker) {
             const auto all = candidates(worker);
             return std::find(all.begin(), all.end(), id) != all.end();
           });
  });
  for (const WorkerConfig& process : processes) {
    if (process.slots == 0) {
      continue;  // it is stopped
    }
    Device& device = get(key_of(process));
    take_lock(device, now_ns);
    const WorkerConfig& worker = *find_by_name(config.workers, worker_of(process));
    Budget& share = device.shares[worker.name];
    share.name = "worker " + worker.name;
    share.parent = &device.budget;
    share.slots = worker.slots;
    if (!worker.adaptive_slots) {
      share.adaptive.reset();
    } else if (share.adaptive) {
      share.adaptive->allow(worker.slots, now_ns);
    } else {
      share.adaptive.emplace(worker.slots);
    }
    share.memory_bytes = worker.memory_bytes;
  }
  for (auto& [key, device] : devices_) {
    device.budget.slots = 0;
    device.budget.memory_bytes = 0;
    for (const auto& [name, share] : device.shares) {  // of workers that are no more, and still run
      if (share.seats > 0) {
        device.budget.slots = std::max(device.budget.slots, share.slots);
        device.budget.memory_bytes = std::max(device.budget.memory_bytes, share.memory_bytes);
      }
    }
    for (const WorkerConfig& worker : config.workers) {
      if (device.shares.contains(worker.name) || lists(worker, key)) {  // also where it is not now
        device.budget.slots = std::max(device.budget.slots, worker.slots);
        device.budget.memory_bytes = std::max(device.budget.memory_bytes, worker.memory_bytes);
      }
    }
    const auto said =
        std::find_if(config.devices.begin(), config.devices.end(),
                     [this, &id = key](const DeviceConfig& each) { return same(each.id) == id; });
    if (said != config.devices.end() && said->slots > 0) {
      device.budget.slots = said->slots;
    }
    if (said != config.devices.end() && said->memory_bytes > 0) {
      device.budget.memory_bytes = said->memory_bytes;
    }
  }
}

// A process that takes its memory when it starts gets its part of its worker's; of the device's, if
// all that its workers may have together is more. What is left there is granted job by job.
void Devices::share_memory(std::vector<WorkerConfig>& processes) {
  struct Sums {
    double wanted = 0;  // by all workers there
    int64_t set_aside = 0;
  };
  std::map<std::string, Sums> sums;
  std::map<std::pair<std::string, std::string>, int64_t> counts;  // of a worker's processes there
  for (const WorkerConfig& process : processes) {
    ++counts[{key_of(process), worker_of(process)}];
  }
  const auto bound = [&](const std::string& key) {
    const auto found = devices_.find(key);
    return found == devices_.end() ? 0 : found->second.budget.memory_bytes;
  };
  const auto wanted = [&](const std::string& key, const std::string& worker) {
    const int64_t said = find_by_name(workers_, worker)->memory_bytes;
    return said > 0 ? said : bound(key);
  };
  for (const auto& [where, count] : counts) {
    sums[where.first].wanted += static_cast<double>(wanted(where.first, where.second));
  }
  for (WorkerConfig& process : processes) {
    const std::string key = key_of(process);
    const int64_t most = bound(key);
    if (process.slots == 0) {
      process.memory_bytes = 0;
    } else if (!process.reserves_memory()) {
      process.memory_bytes = wanted(key, worker_of(process));
      process.memory_bytes = most > 0 ? std::min(most, process.memory_bytes) : process.memory_bytes;
    } else {
      const auto part = static_cast<double>(wanted(key, worker_of(process))) /
                        static_cast<double>(counts.at({key, worker_of(process)}));
      const double cut = most > 0 && sums[key].wanted > static_cast<double>(most)
                             ? static_cast<double>(most) / sums[key].wanted
                             : 1;
      process.memory_bytes = static_cast<int64_t>(part * cut);
      sums[key].set_aside += process.memory_bytes;
    }
  }
  for (auto& [key, device] : devices_) {
    device.budget.set_aside_bytes = sums[key].set_aside;
  }
}

void Devices::advance_claims() {
  for (auto& [key, device] : devices_) {
    device.claims.advance();
  }
}

std::unique_ptr<Seat> Devices::seat(const WorkerConfig& process) {
  Device& device = devices_.at(key_of(process));
  auto seat = std::make_unique<Seat>(device.shares.at(worker_of(process)), device.claims);
  if (process.reserves_memory()) {
    seat->reserve(process.memory_bytes);
  }
  return seat;
}

bool Devices::can_start(const WorkerConfig& process) const { return waits_for(process).empty(); }

std::string Devices::waits_for(const WorkerConfig& process) const {
  const Device* const device = find(process);
  // Before the driver has answered, a UUID may yet be one of the numbers.
  const bool a_number = process.device.find_first_not_of("0123456789") == std::string::npos;
  if (!known_ && process.may_use_a_gpu() && !a_number) {
    return "which GPUs there are is not known yet";
  }
  if (device == nullptr) {
    return "it has no device";
  }
  if (!locks_.empty() && !device->lock.valid()) {
    return "a worker of an earlier penstockd still runs on device " + device->id;
  }
  if (device->out) {
    return "device " + device->id + " is out: " + device->fault;
  }
  const auto share = device->shares.find(worker_of(process));
  if (share == device->shares.end() ||
      (process.reserves_memory() && !share->second.has_room(process.memory_bytes))) {
    return "the memory it takes on device " + device->id + " is still held by others";
  }
  return "";
}

bool Devices::adapted(int64_t now_ns) {
  bool any = false;
  for (auto& [key, device] : devices_) {
    for (auto& [worker, share] : device.shares) {
      if (!share.adaptive) {
        continue;
      }
      share.adaptive->advance_to(now_ns);
      if (share.adaptive->settled() != share.told_usual && share.told_ns + kTellNs <= now_ns) {
        share.told_usual = share.adaptive->settled();
        share.told_ns = now_ns;
        log(Level::kInfo, share.name + " on device " + key + ": " + share.adaptive->say());
      }
      any = any || share.told_limit != share.limit();
      share.told_limit = share.limit();
    }
  }
  return any;
}

}  // namespace penstock::queue
