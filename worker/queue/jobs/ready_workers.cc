#include "worker/queue/jobs/ready_workers.h"

#include <algorithm>
#include <set>

namespace penstock::queue {
namespace {

bool serves(const WorkerSession& worker, const Scheduler::Lane& lane) {
  return &worker.lane() == &lane ||
         (worker.lane().queue == lane.queue && &lane == &lane.queue->any_model());
}

// Of two workers that share a pace. REQUIRES: b has a job.
bool starts_before(const WorkerSession& a, const WorkerSession& b) {
  const Scheduler::Ticket* const job = Scheduler::next(a.lane());
  if (job == nullptr) {
    return false;
  }
  const int64_t a_rank = Scheduler::rank_of(*job);
  const int64_t b_rank = Scheduler::rank_of(*Scheduler::next(b.lane()));
  return a_rank != b_rank ? a_rank > b_rank : a.lane().braked_turn < b.lane().braked_turn;
}

}  // namespace

// ---- whose turn it is ----

WorkerSession* ReadyWorkers::next(const Claims& device, const Suspects& suspects, int64_t now_ns) {
  WorkerSession* const there = next_there(device, suspects, now_ns);
  if (there == nullptr || there->pace() == nullptr || Scheduler::next(there->lane()) == nullptr) {
    return there;
  }
  WorkerSession* first = there;
  for (WorkerSession* const each : workers_) {
    if (each->pace() == there->pace() && &each->lane() != &first->lane() && each->credit() > 0 &&
        takes_any(*each, suspects) && is_open(*each, now_ns) && starts_before(*each, *first)) {
      first = each;
    }
  }
  const bool on_its_turn =
      first == there || next_there(first->seat().claims(), suspects, now_ns) == first;
  return on_its_turn ? first : there;
}

WorkerSession* ReadyWorkers::next_there(const Claims& device, const Suspects& suspects,
                                        int64_t now_ns) {
  bidders_.clear();
  for (WorkerSession* const worker : workers_) {
    if (&worker->seat().claims() == &device && worker->credit() > 0 &&
        takes_any(*worker, suspects) && is_open(*worker, now_ns)) {
      bidders_.push_back(worker);
    }
  }
  if (bidders_.size() < 2) {
    return bidders_.empty() ? nullptr : bidders_.front();
  }
  bids_.clear();
  for (WorkerSession* const worker : bidders_) {
    if (const Scheduler::Ticket* const job = Scheduler::next(worker->lane()); job != nullptr) {
      bidders_[bids_.size()] = worker;  // those without a job are left out
      bids_.push_back({.worker = &worker->seat().budget(),
                       .priority = Scheduler::rank_of(*job),
                       .arrived_ns = job->arrived_ns(),
                       .aging_ns = worker->lane().queue->settings.aging_ns,
                       .busy = worker->seat().busy(),
                       .slots = worker->slots()});
    }
  }
  return bids_.empty() ? nullptr : bidders_[next_turn(bids_, now_ns)];
}

// Whether its pace lets its next job start.
bool ReadyWorkers::is_open(const WorkerSession& worker, int64_t now_ns) {
  if (worker.pace() == nullptr) {
    return true;
  }
  const Scheduler::Ticket* const job = Scheduler::next(worker.lane());
  const int64_t opens_ns =
      job == nullptr ? now_ns : worker.pace()->opens_ns(Scheduler::cost_of(*job), now_ns);
  if (opens_ns > now_ns) {
    opens_ns_ = std::min(opens_ns_, opens_ns);
  }
  return opens_ns <= now_ns;
}

// Whether it may be given jobs that are no suspects. Not while it runs such; and where some wait
// and none run, one worker, the least busy, takes no more until it is empty: so they need not wait
// for one that is started anew.
bool ReadyWorkers::takes_any(const WorkerSession& worker, const Suspects& suspects) const {
  if (worker.group() != 0) {
    return false;
  }
  if (!suspects.waiting(worker.lane())) {
    return true;
  }
  const WorkerSession* least = &worker;
  for (const WorkerSession* const each : workers_) {
    if (&each->lane() == &worker.lane() && !each->draining()) {
      if (each->group() != 0) {
        return true;
      }
      least = each->running() < least->running() ? each : least;
    }
  }
  return least != &worker;
}

std::pair<WorkerSession*, Job*> ReadyWorkers::next_suspect(const Claims& device,
                                                           Suspects& suspects) const {
  for (WorkerSession* const worker : workers_) {
    const Scheduler::Lane& lane = worker->lane();
    if (&worker->seat().claims() != &device || worker->credit() == 0 || lane.queue->paused ||
        !(worker->empty() || worker->group() != 0)) {
      continue;
    }
    if (Job* const job = suspects.take(lane, worker->group()); job != nullptr) {
      return {worker, job};
    }
  }
  return {nullptr, nullptr};
}

WorkerSession* ReadyWorkers::least_busy(const Scheduler::Lane& lane, int64_t now_ns) {
  WorkerSession* best = nullptr;
  for (WorkerSession* const worker : workers_) {
    if (serves(*worker, lane) && worker->credit() > (best != nullptr ? best->credit() : 0) &&
        is_open(*worker, now_ns)) {
      best = worker;
    }
  }
  return best;
}

// Workers of one device have its free slots together: what comes for one of its lanes may take any.
size_t ReadyWorkers::room(const Scheduler::Lane& lane, const Suspects& suspects,
                          const Coming& coming, int64_t now_ns) {
  struct Device {
    size_t credit = 0;
    size_t free = 0;
    std::set<const Scheduler::Lane*> others;
  };
  std::map<const Claims*, Device> devices;
  for (WorkerSession* const worker : workers_) {
    if (&worker->lane() == &lane && worker->credit() > 0 && takes_any(*worker, suspects) &&
        is_open(*worker, now_ns)) {
      Device& device = devices[&worker->seat().claims()];
      device.credit += worker->credit();
      device.free = std::max<size_t>(device.free, worker->seat().free_slots());
    }
  }
  for (WorkerSession* const worker : workers_) {
    const auto device = devices.find(&worker->seat().claims());
    if (&worker->lane() != &lane && device != devices.end()) {
      device->second.others.insert(&worker->lane());
    }
  }
  size_t room = 0;
  for (const auto& [claims, device] : devices) {
    size_t taken = 0;
    for (const Scheduler::Lane* const other : device.others) {
      taken += coming(*other);
    }
    room += std::min(device.credit, device.free - std::min(device.free, taken));
  }
  return room;
}

WorkerSession* ReadyWorkers::checker(const Scheduler::Lane& lane, bool completion) const {
  WorkerSession* best = nullptr;
  for (WorkerSession* const worker : workers_) {
    if (worker->checks(completion) && serves(*worker, lane) &&
        (best == nullptr || worker->credit() > best->credit())) {
      best = worker;
    }
  }
  return best;
}

// ---- how much they can hold ----

// What each worker counts, by device and lane, within the bounds of those that share them.
template <typename Count>
ReadyWorkers::ByDevice ReadyWorkers::by_device(Count&& count) const {
  std::map<std::pair<const Budget*, const Scheduler::Lane*>, uint32_t> by_worker;
  for (const WorkerSession* const worker : workers_) {
    by_worker[{&worker->seat().budget(), &worker->lane()}] += count(*worker);
  }
  ByDevice counted;
  for (const auto& [of, sum] : by_worker) {
    const auto [share, lane] = of;
    uint32_t& there = counted[&share->device()][lane];
    there = std::min(share->device().slots, there + std::min(sum, share->usual()));
  }
  return counted;
}

void ReadyWorkers::count_capacity(Scheduler& scheduler) const {
  using Lane = Scheduler::Lane;
  const ByDevice devices = by_device([](const WorkerSession& worker) { return worker.capacity(); });
  struct Share {
    Lane* lane;
    uint32_t device_slots = 0;
    std::map<const Lane*, uint32_t> others;  // their slots on its devices
  };
  std::vector<Share> shares;
  for (Scheduler::Queue& queue : scheduler.queues()) {
    for (size_t i = 1; i < queue.lanes.size(); ++i) {
      Share& share = shares.emplace_back(Share{queue.lanes[i].get()});
      uint32_t capacity = 0;
      for (const auto& [device, lanes] : devices) {
        const auto own = lanes.find(share.lane);
        if (own == lanes.end()) {
          continue;
        }
        capacity += own->second;
        uint32_t all = 0;
        for (const auto& [lane, slots] : lanes) {
          all += slots;
          share.others[lane] += slots;
        }
        share.device_slots += std::min(all, device->slots);
      }
      share.others.erase(share.lane);
      scheduler.set_capacity(*share.lane, capacity);
    }
  }
  for (const Share& share : shares) {
    std::vector<Scheduler::Rival> rivals;
    for (const auto& [lane, slots] : share.others) {
      if (slots > 0) {
        rivals.push_back({lane, static_cast<double>(slots) / lane->capacity, slots});
      }
    }
    scheduler.set_rivals(*share.lane, share.device_slots, std::move(rivals));
  }
}

std::map<const Scheduler::Queue*, uint32_t> ReadyWorkers::slots_by_queue() const {
  std::map<const Scheduler::Queue*, uint32_t> slots;
  for (const auto& [device, lanes] : by_device(
           [](const WorkerSession& worker) { return worker.draining() ? 0 : worker.slots(); })) {
    std::map<const Scheduler::Queue*, uint32_t> there;
    for (const auto& [lane, count] : lanes) {
      there[lane->queue] += count;
    }
    for (const auto& [queue, count] : there) {
      slots[queue] += std::min(count, device->slots);
    }
  }
  return slots;
}

}  // namespace penstock::queue
