#include "worker/engines/simulate/simulate_options.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <optional>
#include <string_view>

#include "shared/base/clock.h"
#include "shared/base/fd.h"
#include "shared/base/units.h"
#include "worker/pool/options.h"

namespace penstock::simulate {
namespace {

constexpr int64_t kMaxServiceTimeNs = kNsPerSec * 86400 * 7;

bool quantity(std::optional<int64_t> value, int64_t most, int64_t& out) {
  out = value.value_or(0);
  return value.has_value() && *value <= most;
}

bool distribution(std::string_view text, Distribution& out) {
  if (text != "constant" && text != "exponential" && text != "lognormal") {
    return false;
  }
  out = text == "constant"      ? Distribution::kConstant
        : text == "exponential" ? Distribution::kExponential
                                : Distribution::kLognormal;
  return true;
}

// What would have been right, or nullptr when the option was taken.
const char* take(const std::string& key, const std::string& value, SimulateOptions& out) {
  const auto wanted = [](bool fine, const char* words) { return fine ? nullptr : words; };
  if (key == "service_time") {
    return wanted(quantity(parse_duration_ns(value), kMaxServiceTimeNs, out.service_time_ns),
                  "a time of at most a week, like 20ms");
  }
  if (key == "service_time_ns") {
    return wanted(parse_number<int64_t>(value, 0, kMaxServiceTimeNs, out.service_time_ns),
                  "nanoseconds, at most a week");
  }
  if (key == "distribution") {
    return wanted(distribution(value, out.distribution), "constant, exponential or lognormal");
  }
  if (key == "sigma") {
    return wanted(parse_number(value, 0.0, 5.0, out.sigma), "a number from 0 to 5");
  }
  if (key == "tokens_per_second") {
    return wanted(parse_number(value, 0.0, 1e9, out.tokens_per_second), "a number from 0 to 1e9");
  }
  if (key == "output_tokens") {
    return wanted(parse_number<uint32_t>(value, 1, 1'000'000, out.output_tokens),
                  "a number from 1 to 1000000");
  }
  if (key == "parallel") {
    return wanted(parse_number<uint32_t>(value, 1, 1'000'000, out.parallel),
                  "a number from 1 to 1000000");
  }
  if (key == "failure_rate") {
    return wanted(parse_number(value, 0.0, 1.0, out.failure_rate), "a number from 0 to 1");
  }
  if (key == "job_memory") {
    return wanted(quantity(parse_size_bytes(value), INT64_MAX, out.job_memory_bytes),
                  "a size like 64MiB");
  }
  if (key == "seed") {
    return wanted(parse_number<uint64_t>(value, 0, UINT64_MAX, out.seed), "a number");
  }
  if (key == "run_log") {
    out.run_log = value;
    return wanted(Fd(open_run_log(value)).valid(), "a file that can be appended to");
  }
  if (key == "occupancy") {
    out.occupancy = value;
    return nullptr;
  }
  if (key == "faults") {
    out.faults = value;
    return nullptr;
  }
  if (key == "crash_on") {
    out.crash_on = value;
    return nullptr;
  }
  return "one of service_time, service_time_ns, distribution, sigma, tokens_per_second, "
         "output_tokens, parallel, failure_rate, job_memory, seed, run_log, occupancy, faults, "
         "crash_on as its key";
}

}  // namespace

int open_run_log(const std::string& path) {
  return ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
}

std::string this_device() {
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible == nullptr ? "" : visible;
}

std::string fault_of(const SimulateOptions& options) {
  std::ifstream file(options.faults);
  const std::string ours = this_device();
  for (std::string device, fault; file >> device >> fault;) {
    if (device == ours) {
      return fault;
    }
  }
  return "";
}

Status check_device(const SimulateOptions& options) {
  const std::string fault = options.faults.empty() ? "" : fault_of(options);
  while (fault == "hang") {
    ::pause();
  }
  return fault == "lost" ? Status(Error{"simulated device " + this_device() + " is lost"})
                         : Status(Ok{});
}

Result<SimulateOptions> parse_options(const std::map<std::string, std::string>& options) {
  SimulateOptions out;
  for (const auto& [key, value] : options) {
    if (const char* wanted = take(key, value, out); wanted != nullptr) {
      std::string message = "option ";
      message.append(key).append("=").append(value);
      return Error{message.append(" of the simulate engine must be ").append(wanted)};
    }
  }
  return out;
}

}  // namespace penstock::simulate
