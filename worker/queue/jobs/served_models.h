// ServedModels: which workers there should be, what they serve, and whether they are there.
//
// It answers three questions about a job before it is queued: is there such a queue, does anybody
// there serve its model, and is anybody there to wait for. A worker that is being restarted is
// worth waiting for during the grace, and so is one that is new, from when it was configured; one
// whose first start came to nothing is not.
//
// It also tells a lane when the first of its workers is expected: when it is started, or what would
// run its jobs is tried again, and as long after as its last start took.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "worker/queue/config/config.h"
#include "worker/queue/order/scheduler.h"

namespace penstock::queue {

class ServedModels {
 public:
  struct Member {
    std::string worker;         // its name
    std::string model;          // what callers ask for
    std::string model_written;  // `model:` as in the file, which they may ask for too
    Scheduler::Lane* lane = nullptr;
    enum class State : uint8_t { kAbsent, kReady, kLeaving } state = State::kAbsent;
    int64_t lost_ns = 0;                // kAbsent: since when
    int64_t next_start_ns = INT64_MIN;  // kAbsent: when it is started again
    int64_t started_ns = INT64_MIN;     // kAbsent: when it was, if it is being; else INT64_MIN
    int64_t start_took_ns = 0;          // the last time; 0: it was never ready
    bool cannot_load = false;           // its last start came to nothing
  };

  // Takes over the workers of a configuration; those it knew by name keep their state.
  void assign(const Config& config, Scheduler& scheduler, int64_t now_ns);

  const std::vector<Member>& members() const { return members_; }

  // Its process has begun to get ready.
  void starting(std::string_view worker, int64_t now_ns);
  void ready(std::string_view worker, int64_t now_ns);
  // It was told to drain; another of its name will follow.
  void leaving(std::string_view worker);
  void lost(std::string_view worker, int64_t now_ns, int64_t next_start_ns);
  // It was started and did not get ready: it could not load its model, say.
  void failed(std::string_view worker, int64_t next_start_ns);
  // It is not there, and will not be before then.
  void expect(std::string_view worker, int64_t next_start_ns);

  // The lane of a model, or nullptr when nobody in the queue serves it. An empty model is any.
  Scheduler::Lane* find(Scheduler::Queue& queue, std::string_view model) const;
  // The queue's models, each once, in the file's order.
  std::vector<std::string_view> models(const Scheduler::Queue& queue) const;

  // May callers of this lane wait? `grace_ns` bounds how long for workers that were lost.
  bool attended(const Scheduler::Lane& lane, int64_t now_ns, int64_t grace_ns) const;
  // Whether the lane's workers were started and none got ready. REQUIRES: the lane is not attended.
  bool cannot_load(const Scheduler::Lane& lane) const;
  // When attended() ends or may begin by itself: the earliest restart, else now; INT64_MAX: its
  // workers were sent away.
  int64_t next_start_ns(const Scheduler::Lane& lane, int64_t now_ns) const;
  // That nobody of this lane is worth waiting for, in words.
  std::string unattended_words(const Scheduler::Lane& lane) const;

 private:
  Member* member(std::string_view worker);
  void foresee(const Member& changed);
  static bool serves(const Member& member, const Scheduler::Lane& lane);

  std::vector<Member> members_;
};

}  // namespace penstock::queue
