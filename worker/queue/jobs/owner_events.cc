#include "worker/queue/jobs/owner_events.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "worker/queue/jobs/caller.h"
#include "worker/queue/jobs/told_wait.h"
#include "worker/queue/text/json.h"

namespace penstock::queue {
namespace {

constexpr int64_t kMsPerSec = 1000;

// What was said of a job.
struct Told {
  JobId id;
  bool said = false;   // or it is known only that something has happened to it
  bool asked = false;  // the store is, as it has ended
  uint64_t round = 0;  // when it was last seen alive
  uint32_t attempts = 0;
  double progress = 0;
  ToldWait wait;
};

Told told_of(const JobView& view, int64_t now_ns) {
  return {.id = view.id,
          .said = true,
          .attempts = view.attempts,
          .progress = view.progress.value_or(-1),
          .wait = ToldWait::of(view, now_ns)};
}

bool differs(const Told& before, const Told& now) {
  return !before.said || before.attempts != now.attempts || before.progress != now.progress ||
         before.wait.differs(now.wait);
}

}  // namespace

struct OwnerStream {
  OwnerStream(OwnerEvents& of, Waiter& its, uint64_t whose, int64_t until_ns)
      : events(of), waiter(its), owner(whose), ends_ns(until_ns) {
    if (owner != 0) {
      events.streams_.emplace(owner, &waiter);
    }
  }
  OwnerStream(const OwnerStream&) = delete;
  OwnerStream& operator=(const OwnerStream&) = delete;
  ~OwnerStream() {
    const auto [first, last] = events.streams_.equal_range(owner);
    const auto self =
        std::find_if(first, last, [&](const auto& each) { return each.second == &waiter; });
    if (self != last) {
      events.streams_.erase(self);
    }
  }

  Told& find(const JobId& id) {
    const auto at =
        std::find_if(told.begin(), told.end(), [&](const Told& each) { return each.id == id; });
    return at != told.end() ? *at : told.emplace_back(Told{.id = id});
  }
  void forget(const JobId& id) {
    told.erase(
        std::remove_if(told.begin(), told.end(), [&](const Told& each) { return each.id == id; }),
        told.end());
  }

  OwnerEvents& events;
  Waiter& waiter;
  uint64_t owner;
  int64_t ends_ns;
  int64_t looked_ns = 0;
  uint64_t round = 0;
  bool draining = false;   // as was told
  bool paused = false;     // likewise
  std::vector<Told> told;  // of those that are alive, or were when it last looked
  std::string who;         // as the edge names the owner
  bool asking = false;     // what is elsewhere
  std::unordered_map<std::string, std::string> elsewhere;  // what was said of it
};

void OwnerEvents::say(Waiter& waiter, std::string_view event, std::string_view json) {
  subscribers_.stream(waiter).event(event, json);
  waiter.told_ns = connections_.now_ns();
}

void OwnerEvents::begin(Waiter& waiter, uint64_t owner, std::string who, std::string_view jobs,
                        const Seen& elsewhere, bool more, int64_t wall_ms) {
  const int64_t now_ns = connections_.now_ns();
  waiter.kind = Waiter::Kind::kOwner;
  waiter.stream = std::make_shared<OwnerStream>(
      *this, waiter, owner, now_ns + kLongestNs + wall_ms * kNsPerMs % kSpreadNs);
  waiter.stream->who = std::move(who);
  waiter.stream->elsewhere.insert(elsewhere.begin(), elsewhere.end());
  subscribers_.begin_stream(waiter);
  char time[32];
  std::snprintf(time, sizeof time, "%lld.%03d", static_cast<long long>(wall_ms / kMsPerSec),
                static_cast<int>(wall_ms % kMsPerSec));
  say(waiter, "snapshot",
      JsonObject().raw("server_time", time).raw("jobs", jobs).boolean("more", more).done());
  const bool alive = follow(waiter, true) || is_shared;
  subscribers_.set_due(waiter, now_ns + (alive ? kEveryNs : Subscribers::kKeepAliveNs));
}

// Says what has changed of those that are alive, and asks about those that are not any more. True
// if there are any.
bool OwnerEvents::follow(Waiter& waiter, bool silently) {
  OwnerStream& stream = *waiter.stream;
  if (stream.owner == 0 || store_ == nullptr) {
    return false;
  }
  const int64_t now_ns = stream.looked_ns = connections_.now_ns();
  ++stream.round;
  bool paused = false;
  for (Job* const job : live_.list(stream.owner, UINT64_MAX, kMostLive)) {
    if (job->promise != Job::PromiseState::kMade) {
      continue;
    }
    Told& told = stream.find(job->id());
    told.round = stream.round;
    if (job->ending) {
      continue;
    }
    JobView view = subscribers_.view(*job, waiter.jobs_path);
    view.moved = told.wait.moved(view);
    paused = paused || (job->home()->queue->paused && view.status == JobStatus::kQueued);
    Told now = told_of(view, now_ns);
    if (!silently && differs(told, now)) {
      say(waiter, "job", render(view));
    } else if (!silently) {
      continue;
    }
    now.round = stream.round;
    told = now;
  }
  notice(waiter, paused);
  for (Told& told : stream.told) {
    if (told.round != stream.round && !told.asked && store_->pending() < Store::kMostPending) {
      told.asked = true;
      ask_about(waiter, told.id);
    }
  }
  return !stream.told.empty();
}

// What has changed of the newest that hosts share. True: it is to be looked again.
bool OwnerEvents::follow_elsewhere(Waiter& waiter) {
  OwnerStream& stream = *waiter.stream;
  if (!is_shared || stream.owner == 0 || stream.asking) {
    return is_shared && stream.owner != 0;
  }
  stream.asking = true;
  Subscribers::ask(waiter);
  look_elsewhere(stream.who, waiter.jobs_path, [this, &waiter](const Seen& seen) {
    if (!subscribers_.answered(waiter)) {
      return;
    }
    OwnerStream& its = *waiter.stream;
    its.asking = false;
    if (seen.empty()) {
      return;
    }
    std::unordered_map<std::string, std::string> now;
    for (auto job = seen.rbegin(); job != seen.rend(); ++job) {
      const auto before = its.elsewhere.find(job->first);
      if (before == its.elsewhere.end() || before->second != job->second) {
        say(waiter, "job", job->second);
      }
      now.insert(*job);
    }
    its.elsewhere = std::move(now);
  });
  return true;
}

void OwnerEvents::notice(Waiter& waiter, bool paused) {
  OwnerStream& stream = *waiter.stream;
  const bool draining = is_draining();
  if (draining == stream.draining && paused == stream.paused) {
    return;
  }
  stream.draining = draining;
  stream.paused = paused;
  say(waiter, "notice",
      JsonObject().boolean("draining", draining).boolean("paused", paused).done());
}

void OwnerEvents::ask_about(Waiter& waiter, const JobId& id) {
  Subscribers::ask(waiter);
  store_->find(id, [this, &waiter, id](std::optional<JobRecord> record) {
    if (!subscribers_.answered(waiter)) {
      return;
    }
    waiter.stream->forget(id);
    if (!record) {
      return say(waiter, "gone", JsonObject().text("id", id.view()).done());
    }
    if (has_ended(record->status)) {  // else it is of more than are followed
      JobView view = view_of(*record);
      view.jobs_path = waiter.jobs_path;
      say(waiter, "job", render(view));
    }
  });
}

void OwnerEvents::changed(const Job& job) {
  if (job.owner == 0 || job.promise != Job::PromiseState::kMade) {
    return;
  }
  const auto [first, last] = streams_.equal_range(job.owner);
  for (auto at = first; at != last; ++at) {
    Waiter& waiter = *at->second;
    OwnerStream& stream = *waiter.stream;
    if (waiter.caller == nullptr) {
      continue;  // it has left
    }
    if (stream.told.size() < 2 * kMostLive) {
      stream.find(job.id());
    }
    subscribers_.set_due(waiter, std::max(connections_.now_ns(), stream.looked_ns + kSoonNs));
  }
}

void OwnerEvents::look(Waiter& waiter) {
  const int64_t now_ns = connections_.now_ns();
  if (waiter.caller->clogged()) {
    return subscribers_.set_due(waiter, now_ns + kEveryNs);
  }
  if (now_ns >= waiter.stream->ends_ns) {
    subscribers_.stream(waiter).end();
    wire::append(waiter.caller->out(), waiter.id, wire::Done{});
    return subscribers_.leave(waiter);
  }
  const bool elsewhere = follow_elsewhere(waiter);
  const bool alive = follow(waiter, false) || elsewhere;
  if (now_ns - waiter.told_ns >= Subscribers::kKeepAliveNs) {
    subscribers_.stream(waiter).keep_alive();
    waiter.told_ns = now_ns;
  }
  const int64_t keep_alive_ns = waiter.told_ns + Subscribers::kKeepAliveNs;
  subscribers_.set_due(waiter, alive ? std::min(keep_alive_ns, now_ns + kEveryNs) : keep_alive_ns);
}

}  // namespace penstock::queue
