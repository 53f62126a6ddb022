// Autoscale: how many processes a worker should have, by how long its callers would wait.
//
// It is told the load each second. A wait that is longer than the target asks for more processes,
// in proportion: for half the wait, twice as many. No wait asks for as many as the running jobs
// need. More are wanted only after that was so for kUpNs, and fewer only after fewer were enough
// for `down_ns`. So neither a burst nor a lull sets anything in motion. Kubernetes' horizontal
// autoscaler works the same way: it takes the least that was wanted in a short window, and the most
// in a long one.
// https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
//
// Pure: time is pushed in.
#pragma once

#include <cstdint>
#include <deque>

namespace penstock::queue {

struct AutoscaleBounds {
  uint32_t min = 1;
  uint32_t max = 1;
  int64_t target_wait_ns = 0;
  int64_t down_ns = 0;
  bool operator==(const AutoscaleBounds&) const = default;
};

class Autoscale {
 public:
  static constexpr int64_t kUpNs = 5'000'000'000;

  struct Load {
    uint32_t processes = 0;  // there should be
    uint32_t slots = 1;      // of each
    uint32_t running = 0;    // jobs
    int64_t wait_ns = 0;     // predicted, of a job that came now
  };
  // How many there should be now. Calls come in the order of time.
  uint32_t desired(const AutoscaleBounds& bounds, const Load& load, int64_t now_ns);

 private:
  struct Wish {
    int64_t at_ns;
    uint32_t processes;
  };
  static uint32_t wish(const AutoscaleBounds& bounds, const Load& load);

  std::deque<Wish> wishes_;  // since `down_ns` ago; of those alike in a row the first and the last
};

}  // namespace penstock::queue
