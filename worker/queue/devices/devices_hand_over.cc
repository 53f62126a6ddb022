// Devices: as one penstockd hands them to the next.
#include <algorithm>

#include "worker/queue/bound/scaling.h"
#include "worker/queue/devices/devices.h"

namespace penstock::queue {

void Devices::hand_over(RecordWriter& record) const {
  for (const auto& [id, device] : devices_) {
    record.add(CarriedLock{
        .name = id,
        .fd = device.lock.valid() ? static_cast<uint64_t>(device.lock.get()) : 0,
        .out = device.out && !device.watched_bad ? 1U : 0U,  // else the driver will say so again
        .fault = device.fault});
  }
  for (const DeviceState& each : seen_) {
    record.add(CarriedDevice{.index = each.index,
                             .parent_plus1 = each.parent ? *each.parent + 1U : 0U,
                             .uuid = each.uuid,
                             .name = each.name,
                             .memory_total_bytes = each.memory_total_bytes,
                             .health = static_cast<uint64_t>(each.health),
                             .message = each.message});
  }
}

void Devices::hand_over_claims(
    RecordWriter& record, const std::function<std::string_view(const Seat&)>& worker_of) const {
  for (const auto& [id, device] : devices_) {
    device.claims.each([&](const Seat& seat, uint64_t job, int64_t bytes) {
      record.add(CarriedClaim{.worker = worker_of(seat), .number = job, .bytes = bytes});
    });
  }
}

bool Devices::keep_over_exec(bool keep) const {
  return std::all_of(devices_.begin(), devices_.end(), [&](const auto& each) {
    const Fd& lock = each.second.lock;
    return !lock.valid() || penstock::queue::keep_over_exec(lock.get(), keep);
  });
}

void Devices::take_over(const CarriedLock& lock, int64_t now_ns) {
  Device& device = get(std::string(lock.name));
  if (auto fd = take_descriptor(lock.fd); fd) {
    device.lock = *std::move(fd);
  }
  device.out = lock.out != 0;
  if (device.out) {
    device.fault = lock.fault;
    device.check_ns = now_ns;
  }
}

void Devices::take_over(const CarriedDevice& device) {
  constexpr auto kLast = static_cast<uint64_t>(wire::DeviceHealth::kUnreadable);
  DeviceState& state = seen_.emplace_back();
  state.index = static_cast<uint32_t>(device.index);
  if (device.parent_plus1 != 0) {
    state.parent = static_cast<uint32_t>(device.parent_plus1 - 1);
  }
  state.uuid = device.uuid;
  state.name = device.name;
  state.memory_total_bytes = device.memory_total_bytes;
  state.health = static_cast<wire::DeviceHealth>(std::min(device.health, kLast));
  state.message = device.message;
}

// Its worker may be of no configuration any more: its share is as it was until it is gone.
void Devices::take_over(const WorkerConfig& process) {
  Device& device = get(key_of(process));
  const std::string worker(Scaling::worker_of(process.name));
  Budget& share = device.shares[worker];
  share.name = "worker " + worker;
  share.parent = &device.budget;
  share.slots = std::max(share.slots, process.slots);
  share.memory_bytes = std::max(share.memory_bytes, process.memory_bytes);
}

}  // namespace penstock::queue
