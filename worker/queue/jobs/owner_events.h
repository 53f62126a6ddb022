// OwnerEvents: all of an owner's promised jobs, in one stream (GET /jobs/events). Browsers allow
// six connections to a host, and a page may show more jobs than that.
//
//   snapshot   {"server_time":…,"jobs":[…],"more":false}   first: the newest, as a list has them
//   job        one job, whole, as it is now: when it has come, changed or ended
//   gone       {"id":…}   it is not kept any more
//   notice     {"draining":false,"paused":true}   when it has changed: penstockd is about to stop;
//   a
//              queue in which a job of these waits is paused
//
// It tells a state, and is no log: its events have no ids, and who comes back begins with a
// snapshot, so nothing can be missed. A job is told of when its status, its place or its progress
// has changed, or, by 5 s and 10 %, what is foretold of it; once in kEveryNs at most, but for what
// changed().
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "worker/queue/jobs/owned_jobs.h"
#include "worker/queue/jobs/subscribers.h"
#include "worker/queue/store/store.h"

namespace penstock::queue {

class OwnerEvents {
 public:
  static constexpr size_t kMostStreams = 8;  // of one owner
  static constexpr size_t kMostLive = 100;   // of its jobs, the newest, are followed
  static constexpr int64_t kEveryNs = kNsPerSec;
  static constexpr int64_t kSoonNs = 250 * kNsPerMs;  // after something has happened
  // Then it ends, and its client comes back: not all at once.
  static constexpr int64_t kLongestNs = 55 * 60 * kNsPerSec;
  static constexpr int64_t kSpreadNs = 10 * 60 * kNsPerSec;

  // All outlive it, and it outlives every Waiter.
  OwnerEvents(ConnectionLoop& connections, Subscribers& subscribers, const OwnedJobs& live)
      : connections_(connections), subscribers_(subscribers), live_(live) {}
  OwnerEvents(const OwnerEvents&) = delete;
  OwnerEvents& operator=(const OwnerEvents&) = delete;

  // Whether penstockd is about to stop.
  std::function<bool()> is_draining = [] { return false; };

  // The newest of the owner's jobs that hosts share: ids, and JSON of each.
  using Seen = std::vector<std::pair<std::string, std::string>>;
  // Asked each second by a stream, where hosts share queues. Whose: as the edge names it.
  std::function<void(const std::string& who, const std::string& jobs_path,
                     std::function<void(Seen)> then)>
      look_elsewhere;
  bool is_shared = false;  // hosts share queues

  // Where the ended ones are. Without it none is promised.
  void use(Store& store) { store_ = &store; }

  // Whether the owner has as many streams as it may.
  bool is_full(uint64_t owner) const { return owner != 0 && streams_.count(owner) >= kMostStreams; }
  // Turns a question into a stream, says the snapshot, and follows what is alive. `jobs`: a JSON
  // list. Nobody (0) has none. REQUIRES: !is_full().
  // `elsewhere`: of these, the ones that hosts share.
  void begin(Waiter& waiter, uint64_t owner, std::string who, std::string_view jobs,
             const Seen& elsewhere, bool more, int64_t wall_ms);
  // A promised job has come, has begun to run, or has ended, which is on disk.
  void changed(const Job& job);
  // It is due. REQUIRES: kOwner.
  void look(Waiter& waiter);

 private:
  friend struct OwnerStream;

  bool follow(Waiter& waiter, bool silently);
  void notice(Waiter& waiter, bool paused);
  bool follow_elsewhere(Waiter& waiter);
  void ask_about(Waiter& waiter, const JobId& id);
  void say(Waiter& waiter, std::string_view event, std::string_view json);

  ConnectionLoop& connections_;
  Subscribers& subscribers_;
  const OwnedJobs& live_;
  Store* store_ = nullptr;
  std::unordered_multimap<uint64_t, Waiter*> streams_;  // by owner
};

}  // namespace penstock::queue
