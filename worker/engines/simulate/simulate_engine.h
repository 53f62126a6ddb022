// The simulate engine: a device that only takes time. For load tests and capacity planning.
//
// A completion (POST .../completions with a JSON object) is answered as a language model would:
// words of a fixed text, spread evenly over the service time when streamed. Anything else is
// accepted and answered {"ok":true,"engine":"simulate"} once its time has passed. Every job runs
// beside the others at full speed, as far as `parallel` goes: the pool's slots are what limits the
// device. So a job's device_ns is the time of its slot: its service time, or less when a stop
// string ended its stream before.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "shared/base/fd.h"
#include "worker/engines/simulate/occupancy.h"
#include "worker/engines/simulate/service_time.h"
#include "worker/engines/simulate/simulate_options.h"
#include "worker/pool/engine.h"
#include "worker/pool/openai.h"

namespace penstock::simulate {

class SimulateEngine final : public Engine {
 public:
  // `model` is echoed in completions. `sink` must outlive this.
  SimulateEngine(const SimulateOptions& options, std::string model, Sink& sink,
                 openai::Rules rules = {});

  std::variant<std::unique_ptr<Plan>, Failure> admit(const Request& request) override;
  bool judges_completions_only() const override { return true; }
  void start(JobNumber job, std::unique_ptr<Plan> plan) override;
  // A job's time begins with the first step after its start. O(log jobs) for each job that is due.
  int64_t step(int64_t wall_ns) override;
  bool cancel(JobNumber job) override;
  void pause(JobNumber job) override;
  void resume(JobNumber job) override;
  // Tokens only: a job takes no steps together with others.
  Figures figures() const override { return done_; }

 private:
  struct SimulatePlan : Plan {
    std::optional<openai::CompletionRequest> completion;  // none: any other request
    std::string logged;                                   // its body's beginning, for the run log
    bool crashes = false;
  };
  struct Job {
    std::unique_ptr<SimulatePlan> plan;
    std::optional<openai::Answer> answer;  // of a completion, unless the job is to fail
    int64_t started_ns = 0;
    int64_t service_ns = 0;
    int64_t due_ns = 0;        // when advance() is to see it again
    int64_t progress_ns = 0;   // when progress is next said
    uint32_t tokens = 0;       // of the whole answer
    uint32_t tokens_sent = 0;  // into the answer
    bool fails = false;
    std::string run;  // as in the run log
  };

  Job begin(JobNumber number, std::unique_ptr<SimulatePlan> plan, int64_t now_ns);
  bool advance(JobNumber number, Job& job, int64_t now_ns);
  void say_progress(JobNumber number, Job& job, int64_t now_ns);
  bool write_tokens(Job& job, uint32_t up_to);
  void finish(JobNumber number, Job& job, bool stopped, int64_t worked_ns);
  int64_t next_due(const Job& job) const;
  double speed() const;
  void leave(const Job& job);
  void obey_faults();
  std::string log_run(JobNumber number, std::string_view body) const;

  const SimulateOptions options_;
  const std::string model_;
  Sink& sink_;
  ServiceTimes times_;
  openai::Parser parser_;
  Fd run_log_;                            // invalid: none is kept
  std::unique_ptr<Occupancy> occupancy_;  // nullptr: likewise

  std::vector<std::pair<JobNumber, std::unique_ptr<SimulatePlan>>> fresh_;  // since the last step
  std::unordered_map<JobNumber, Job> jobs_;                                 // the others
  // The device's own clock, which all of a job's times are of: slow while too many share it.
  int64_t device_now_ns_ = 0;
  int64_t stepped_ns_ = 0;
  std::set<std::pair<int64_t, JobNumber>> by_due_;  // jobs_, the next due first
  Figures done_;
};

}  // namespace penstock::simulate
