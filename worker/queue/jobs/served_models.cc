#include "worker/queue/jobs/served_models.h"

#include <algorithm>
#include <utility>

#include "worker/queue/text/names.h"

namespace penstock::queue {

void ServedModels::assign(const Config& config, Scheduler& scheduler, int64_t now_ns) {
  std::vector<Member> members;
  for (const WorkerConfig& worker : config.workers) {
    Scheduler::Queue* const queue = scheduler.find_queue(worker.queue);
    Member fresh{.lost_ns = now_ns};
    if (const Member* known = member(worker.name); known != nullptr) {
      fresh = *known;
    }
    fresh.worker = worker.name;
    fresh.model = worker.model_name;
    fresh.model_written = worker.model;
    fresh.lane = &scheduler.lane(*queue, worker.model_name);
    fresh.lane->kind = worker.kind;
    members.push_back(std::move(fresh));
  }
  members_ = std::move(members);
  for (const Member& each : members_) {
    foresee(each);
  }
}

// When its lane can expect the first of its workers, while none is there.
void ServedModels::foresee(const Member& changed) {
  int64_t opens_ns = INT64_MAX;
  bool starting = false;
  for (const Member& each : members_) {
    if (each.lane == changed.lane && !(each.cannot_load && each.start_took_ns == 0)) {
      const int64_t from_ns =
          each.started_ns != INT64_MIN ? each.started_ns : std::max<int64_t>(each.next_start_ns, 0);
      opens_ns = std::min(opens_ns, from_ns + each.start_took_ns);
      starting = starting || each.started_ns != INT64_MIN;
    }
  }
  changed.lane->opens_ns = opens_ns;
  changed.lane->starting = starting;
}

ServedModels::Member* ServedModels::member(std::string_view worker) {
  const auto it = std::find_if(members_.begin(), members_.end(),
                               [&](const Member& member) { return member.worker == worker; });
  return it == members_.end() ? nullptr : &*it;
}

void ServedModels::starting(std::string_view worker, int64_t now_ns) {
  if (Member* const found = member(worker); found != nullptr) {
    found->started_ns = now_ns;
    foresee(*found);
  }
}

void ServedModels::ready(std::string_view worker, int64_t now_ns) {
  if (Member* const found = member(worker); found != nullptr) {
    if (const int64_t since_ns = std::exchange(found->started_ns, INT64_MIN);
        since_ns != INT64_MIN) {
      found->start_took_ns = std::max<int64_t>(now_ns - since_ns, 1);
    }
    found->state = Member::State::kReady;
    found->cannot_load = false;
  }
}

void ServedModels::failed(std::string_view worker, int64_t next_start_ns) {
  if (Member* const found = member(worker); found != nullptr) {
    found->cannot_load = true;
    found->next_start_ns = next_start_ns;
    found->started_ns = INT64_MIN;
    if (found->start_took_ns == 0) {
      found->lost_ns = INT64_MIN;  // it may never come
    }
    foresee(*found);
  }
}

void ServedModels::leaving(std::string_view worker) {
  Member* const found = member(worker);
  if (found != nullptr && found->state == Member::State::kReady) {
    found->state = Member::State::kLeaving;
  }
}

void ServedModels::lost(std::string_view worker, int64_t now_ns, int64_t next_start_ns) {
  if (Member* const found = member(worker); found != nullptr) {
    if (found->state != Member::State::kAbsent) {
      found->lost_ns = now_ns;
    } else if (found->start_took_ns == 0 && next_start_ns > now_ns) {
      found->lost_ns = INT64_MIN;  // its first start came to nothing
    }
    found->state = Member::State::kAbsent;
    found->next_start_ns = next_start_ns;
    found->started_ns = INT64_MIN;
    foresee(*found);
  }
}

void ServedModels::expect(std::string_view worker, int64_t next_start_ns) {
  Member* const found = member(worker);
  if (found != nullptr && found->state == Member::State::kAbsent) {
    found->next_start_ns = next_start_ns;
    foresee(*found);
  }
}

Scheduler::Lane* ServedModels::find(Scheduler::Queue& queue, std::string_view model) const {
  if (model.empty()) {
    return &queue.any_model();
  }
  Scheduler::Lane* by_path = nullptr;
  for (const Member& member : members_) {
    if (member.lane->queue == &queue && member.model == model) {
      return member.lane;
    }
    if (member.lane->queue == &queue && member.model_written == model && by_path == nullptr) {
      by_path = member.lane;
    }
  }
  return by_path;
}

std::vector<std::string_view> ServedModels::models(const Scheduler::Queue& queue) const {
  std::vector<std::string_view> models;
  for (const Member& member : members_) {
    if (member.lane->queue == &queue &&
        std::find(models.begin(), models.end(), member.model) == models.end()) {
      models.push_back(member.model);
    }
  }
  return models;
}

bool ServedModels::serves(const Member& member, const Scheduler::Lane& lane) {
  return member.lane == &lane ||
         (member.lane->queue == lane.queue && &lane == &lane.queue->any_model());
}

bool ServedModels::attended(const Scheduler::Lane& lane, int64_t now_ns, int64_t grace_ns) const {
  return std::any_of(members_.begin(), members_.end(), [&](const Member& member) {
    return serves(member, lane) &&
           (member.state != Member::State::kAbsent ||
            (member.lost_ns != INT64_MIN && now_ns - member.lost_ns < grace_ns));
  });
}

bool ServedModels::cannot_load(const Scheduler::Lane& lane) const {
  bool any = false;
  for (const Member& member : members_) {
    if (serves(member, lane)) {
      if (!member.cannot_load) {
        return false;
      }
      any = true;
    }
  }
  return any;
}

int64_t ServedModels::next_start_ns(const Scheduler::Lane& lane, int64_t now_ns) const {
  bool any = false;
  int64_t next_ns = INT64_MAX;
  for (const Member& member : members_) {
    if (serves(member, lane)) {
      any = true;
      next_ns = std::min(next_ns, std::max(now_ns, member.next_start_ns));
    }
  }
  return any ? next_ns : now_ns;
}

std::string ServedModels::unattended_words(const Scheduler::Lane& lane) const {
  const std::string queue = " of queue " + lane.queue->settings.name;
  if (!lane.all_hosts.shared && cannot_load(lane)) {
    return lane.model.empty() ? "No model" + queue + " could be loaded."
                              : "Model " + quoted(lane.model) + queue + " could not be loaded.";
  }
  return "No worker" + queue +
         (lane.model.empty() ? "" : " that serves model " + quoted(lane.model)) + " is up.";
}

}  // namespace penstock::queue
