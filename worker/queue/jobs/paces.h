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
  // The file that keeps what is used. Without it, all is forgotten with the process.
  void keep_in(PaceFile file);
  // Takes over the limits of a configuration. The caller says which lanes they bound
  // (Scheduler::Brake).
  void apply(std::vector<PaceConfig> paces);
  // The pace of a worker, which lives as long as this; nullptr: nothing bounds the worker.
  Pace* of(const WorkerConfig& worker) const;
  // The time that the calendar goes by.
  void set_time(const limit::Instant& now);

 private:
  PaceFile file_;
  std::vector<PaceConfig> configured_;
  std::map<std::string, std::unique_ptr<Pace>> paces_;  // by key
};

}  // namespace penstock::queue
