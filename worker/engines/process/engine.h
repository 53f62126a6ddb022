// The process engine: any program that reads JSON lines and writes JSON lines, one a slot.
//
// docs/PROCESS_PROTOCOL.md is the protocol. slot.h tells how a job goes, program.h how a program
// lives, and guard.h how nothing of a program outlives it.
//
// The descriptors of all programs are in one epoll, which is the engine's wake_fd. step() returns
// when its next timer is due. It is called also while no job runs.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "shared/base/fd.h"
#include "worker/engines/process/slot.h"

namespace penstock::process {

class ProcessEngine final : public Engine {
 public:
  // The scratch folder is named by the name of the `worker`. An Error: there is no such user, or no
  // place for scratch. `sink` must outlive this.
  static Result<std::unique_ptr<Engine>> open(Options options, const std::string& worker,
                                              uint32_t slots, Sink& sink, Log log);
  // All programs are asked to end, and are killed soon.
  ~ProcessEngine() override;

  std::variant<std::unique_ptr<Plan>, Failure> admit(const Request& request) override;
  // Refuses nothing: the program does.
  bool judges_completions_only() const override { return true; }
  void start(JobNumber job, std::unique_ptr<Plan> plan) override;
  int64_t step(int64_t now_ns) override;
  int wake_fd() const override { return epoll_.get(); }
  bool cancel(JobNumber job) override;
  void pause(JobNumber job) override;
  void resume(JobNumber job) override;
  Figures figures() const override;

 private:
  ProcessEngine(Workshop workshop, Scratch scratch, Fd epoll, Fd prod);
  void read_events(int64_t now_ns);
  void announce(int64_t now_ns);
  void start_fresh(int64_t now_ns);
  Slot* slot_of(JobNumber job);

  const Workshop shop_;
  Scratch scratch_;
  Fd epoll_;
  Fd prod_;  // an eventfd: makes wake_fd() readable
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<std::pair<JobNumber, std::unique_ptr<ProcessPlan>>> fresh_;  // since the last step
  std::vector<Slot::Loss> losses_;
  // What the last Opening said.
  uint32_t said_slots_ = UINT32_MAX;
  std::string said_why_;
  int64_t said_retry_ns_ = 0;
};

}  // namespace penstock::process
