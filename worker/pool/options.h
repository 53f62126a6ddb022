// The worker's command line.
#pragma once

#include <charconv>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "shared/base/log.h"
#include "shared/base/result.h"

namespace penstock {

struct WorkerOptions {
  int fd = 3;              // one end of a socket pair to penstockd
  std::string connect;     // or its socket, if this was not started by it
  std::string name;        // as in penstock.yaml
  std::string engine;      // llama, http, process, simulate
  std::string model;       // what the engine loads: a directory for llama
  std::string model_name;  // what callers name; default: the last part of `model`
  uint32_t slots = 1;
  int64_t memory_bytes = 0;                           // 0: no bound
  bool claims_memory = false;                         // penstockd grants it, job by job
  uint64_t max_body_bytes = 32U << 20;                // as penstockd's max_body
  std::string device = "auto";                        // auto, cpu, or a number
  int threads = 0;                                    // 0: as many as there are cores
  std::map<std::string, std::string> engine_options;  // --option key=value
  bool lenient = false;        // fields of requests that nobody knows are passed over
  bool steering = false;       // requests may shift single tokens (openai.h, Rules)
  LogSettings log;             // how its log is written
  bool check_device = false;   // that, and nothing else
  bool watch_devices = false;  // looks at the devices instead (worker/nvml/watch.h)
  bool help = false;
};

// An Error is a line for stderr that names the option.
Result<WorkerOptions> parse_command_line(int argc, char** argv);

// False unless all of `text` is one number within the bounds.
template <typename T>
bool parse_number(std::string_view text, T least, T most, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size() && out >= least && out <= most;
}

extern const char kUsage[];

}  // namespace penstock
