// Lingering: jobs that were cancelled, and whose slots at the server may still be in use.
//
// Our slot is not the server's slot: where a server notices late that nobody listens any more, a
// slot of ours is not free before one is free there. Where the server can be asked how many of its
// slots are busy, it is: what is busy beyond our own jobs is what lingers. Where it cannot, or does
// not answer, a slot is held for a time.
//
// Pure: time is pushed in.
#pragma once

#include <cstdint>
#include <vector>

#include "shared/base/clock.h"
#include "worker/pool/engine.h"

namespace penstock::http_engine {

class Lingering {
 public:
  static constexpr int64_t kAskEveryNs = 100 * kNsPerMs;
  // A job that was sent longer ago is at work there, if it was not answered.
  static constexpr int64_t kArrivedNs = 250 * kNsPerMs;
  // However busy the server says it is, as others may use it, too, where the operator does not say.
  static constexpr int64_t kMostNs = 60 * kNsPerSec;

  // The slot of a job that is cancelled now is held so long, or as the server tells, `most_ns` at
  // most.
  void add(JobNumber job, int64_t now_ns, int64_t linger_ns, int64_t most_ns = kMostNs);

  // Asked after all of them were cancelled, the server said that so many of its slots are busy;
  // `ours`: at least so many of these have jobs that run. What is free counts when it was told
  // twice.
  void told(uint64_t busy, uint64_t ours, int64_t now_ns);

  // Those that are free by now. They are forgotten.
  std::vector<JobNumber> take_free(int64_t now_ns);

  bool empty() const { return jobs_.empty(); }
  // When take_free() has some; INT64_MAX: not by itself.
  int64_t due_ns() const;

 private:
  struct Held {
    JobNumber job;
    int64_t until_ns;
    int64_t latest_ns;
  };
  std::vector<Held> jobs_;  // the longest first
  uint64_t free_ = 0;       // as was told last
};

}  // namespace penstock::http_engine
