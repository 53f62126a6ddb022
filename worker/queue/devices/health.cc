// Devices: which of them are well, and whose they are.
#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "shared/base/units.h"
#include "worker/queue/devices/devices.h"
#include "worker/queue/devices/visible.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

constexpr int64_t kLockRetryNs = 50 * kNsPerMs;

}  // namespace

// One that is taken stays so as long as this process or any that inherited it lives.
void Devices::take_lock(Device& device, int64_t now_ns) {
  if (locks_.empty() || device.lock.valid() || device.lock_ns > now_ns) {
    return;
  }
  std::string path = locks_ + device.id;
  std::replace_if(
      path.begin() + static_cast<ptrdiff_t>(locks_.size()), path.end(),
      [](char c) { return c == ' ' || c == '/'; }, '_');
  Fd lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  const bool tried = device.lock_ns > 0;
  device.lock_ns = now_ns + kLockRetryNs;
  if (lock.valid() && ::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) {
    device.lock = std::move(lock);
    if (tried) {
      log(Level::kInfo, "device " + device.id + ": what an earlier penstockd ran there is gone");
    }
  } else if (!tried) {
    log(Level::kWarn,
        "device " + device.id + ": no worker is started, " +
            (lock.valid() ? "as one of an earlier penstockd still runs there (fuser " + path + ")"
                          : "as " + path + " cannot be opened: " + std::strerror(errno)));
  }
}

int Devices::lock_of(const WorkerConfig& process) const {
  const Device* const device = find(process);
  return device == nullptr ? -1 : device->lock.get();
}

int64_t Devices::out_until_ns(const WorkerConfig& process) const {
  const Device* const device = find(process);
  return device != nullptr && device->out ? device->check_ns : 0;
}

void Devices::observe(const std::vector<DeviceState>& seen, bool known, int64_t now_ns) {
  if (!seen.empty()) {  // else nobody looks for now: what was seen stands
    seen_ = seen;
  }
  std::vector<std::string> gpus = seen_.empty() ? std::vector<std::string>{} : visible_numbers();
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
      } else if (!device.checker.lives()) {
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
  device.good_ns = 0;
  device.fault = device.out ? device.fault : why;  // what it was taken out for
  if (!device.checker.lives()) {                   // else it is waited for first
    device.check_ns = device.watched_bad ? INT64_MAX : now_ns + delay_ns;
  }
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
  const WorkerConfig* user = nullptr;  // one that computes there says the most
  for (const WorkerConfig& worker : workers_) {
    if ((device.shares.contains(worker.name) || lists(worker, device.id)) &&
        (user == nullptr || worker.reserves_memory())) {
      user = &worker;
    }
  }
  if (user == nullptr) {  // nobody would run there any more
    device.out = false;
    device.check_ns = INT64_MAX;
    return;
  }
  auto checker = check_(*user, is_shared_device(device.id) ? device.id : user->devices.front(),
                        device.lock.get());
  if (!checker) {
    return take_out(device, checker.error().message, now_ns);
  }
  device.checker = *checker;
  device.check_ns = now_ns + kCheckTimeoutNs;
}

void Devices::advance_to(int64_t now_ns) {
  for (auto& [key, device] : devices_) {
    take_lock(device, now_ns);
    if (device.check_ns > now_ns || stopping_) {
      continue;
    }
    if (!device.checker.lives()) {
      check(device, now_ns);
    } else {
      device.check_ns = INT64_MAX;
      device.check_hung = true;
      device.checker.kill();
    }
  }
}

int64_t Devices::next_event() const {
  int64_t next_ns = INT64_MAX;
  for (const auto& [key, device] : devices_) {
    next_ns = std::min(next_ns, device.check_ns);
    if (!locks_.empty() && !device.lock.valid()) {
      next_ns = std::min(next_ns, device.lock_ns);
    }
    for (const auto& [worker, share] : device.shares) {
      next_ns = share.adaptive ? std::min(next_ns, share.adaptive->next_event()) : next_ns;
    }
  }
  return next_ns;
}

void Devices::reap(int64_t now_ns) {
  for (auto& [key, device] : devices_) {
    if (device.checker.reap()) {
      on_checked(device, now_ns);
    }
  }
}

void Devices::on_checked(Device& device, int64_t now_ns) {
  const bool hung = std::exchange(device.check_hung, false);
  device.check_ns = INT64_MAX;
  if (device.watched_bad) {
    return;  // it is checked once the driver says otherwise
  }
  if (hung || !device.checker.succeeded()) {
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
  stopping_ = true;
  for (auto& [key, device] : devices_) {
    device.checker.kill();
  }
}

}  // namespace penstock::queue
