// HeldWrites: operations of jobs whose result cannot be stored, kept by job, while others go on.
// They are tried again in the order in which they were asked. Later operations of the same job wait
// behind them. After `most_tries` tries the job's result is given up.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "shared/base/result.h"
#include "worker/queue/store/operation.h"

namespace penstock::queue {

class HeldWrites {
 public:
  explicit HeldWrites(uint32_t most_tries) : most_tries_(most_tries) {}

  bool empty() const { return held_.empty(); }
  // Whether one of the same job is held.
  bool holds_up(const Operation& op) const;
  // REQUIRES: op.job.
  void hold(Operation&& op) { held_[sequence_of(*op.job)].ops.push_back(std::move(op)); }
  // A failure that passes by itself does not count as a try.
  void note_failure(const JobId& id, const Error& error);
  // Takes all of them, to be tried again.
  std::vector<Operation> take_all();
  // Gives up the jobs that have failed too often, and forgets jobs that have no operation left.
  using OnGivenUp =
      std::function<void(const JobId&, std::vector<Operation>&& ops, std::string&& why)>;
  void give_up_some(const OnGivenUp& on_given_up);

 private:
  struct Held {
    std::vector<Operation> ops;
    uint32_t tries = 0;
    std::string why;
  };
  const uint32_t most_tries_;
  std::map<uint64_t, Held> held_;  // by the job's sequence
};

}  // namespace penstock::queue
