// How the simulated device behaves; set by the worker's --option key=value (keys as below).
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "shared/base/result.h"

namespace penstock::simulate {

enum class Distribution { kConstant, kExponential, kLognormal };

struct SimulateOptions {
  // Mean time a job takes. Keys: service_time ("20ms"), or service_time_ns (a number).
  int64_t service_time_ns = 0;
  Distribution distribution = Distribution::kConstant;  // constant, exponential, lognormal
  double sigma = 0.5;                                   // lognormal: of the time's logarithm
  // If set, a completion's mean service time is its tokens over this, whatever service_time says.
  double tokens_per_second = 0;
  uint32_t output_tokens = 16;  // of a completion, unless its max_tokens asks for fewer
  // If set, the device works at full speed on so many jobs; more of them share what it does.
  uint32_t parallel = 0;
  double failure_rate = 0;       // share of jobs that end in a retryable 502, 0 .. 1
  int64_t job_memory_bytes = 0;  // what a job's plan says it holds (job_memory: 64MiB)
  uint64_t seed = 1;             // the same seed and the same starts give the same times
  // If set, a line is appended to this file whenever a job starts, "PID.JOB.TIME BODY", and answers
  // that are no completions say which run made them: so tests can count runs.
  std::string run_log;
  // If set, what runs on the device is kept in this file, over all processes (occupancy.h).
  std::string occupancy;
  // If set, a line "DEVICE FAULT" in this file, while it is there, has the device fail: "lost" (so
  // does its check), "broken" (the engine does), "hang" (it never answers again), "slow" (a step
  // takes as long as the line is there).
  std::string faults;
  // If set, a job whose body has this text kills the process when it would end.
  std::string crash_on;
};

// Whether this process's device works, as far as `faults` says. May hang.
Status check_device(const SimulateOptions& options);
// What `faults` says of this process's device: "", "lost", ...
std::string fault_of(const SimulateOptions& options);
// The device that this process was given: its CUDA_VISIBLE_DEVICES, or "".
std::string this_device();

// A descriptor to append with; -1: it cannot be opened.
int open_run_log(const std::string& path);

// An Error names the key, what was wrong with its value and what would be right.
Result<SimulateOptions> parse_options(const std::map<std::string, std::string>& options);

}  // namespace penstock::simulate
