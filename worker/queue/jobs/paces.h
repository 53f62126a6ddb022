// Paces: the pace of each limit key. Workers that name the same key share one.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "worker/queue/bound/pace.h"
#include "worker/queue/config/config.h"
#include "worker/queue/store/pace_file.h"

namespace penstock::queue {

class Paces {
 public:
  // What is used from now on is kept there.
  void keep_in(PaceFile file);
  // Takes over the limits of a configuration. Which lanes they bound is for the caller to say
  // (Scheduler::Brake).
  void apply(std::vector<PaceConfig> paces);
  // That of the worker, for as long as this; nullptr: nothing bounds it.
  Pace* of(const WorkerConfig& worker) const;
  // What the calendar goes by.
  void set_time(const limit::Instant& now);

 private:
  PaceFile file_;
  std::vector<PaceConfig> configured_;
  std::map<std::string, std::unique_ptr<Pace>> paces_;  // by key
};

}  // namespace penstock::queue
