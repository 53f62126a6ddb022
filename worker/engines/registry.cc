#include "worker/engines/registry.h"

#include <algorithm>
#include <cstdlib>

#include "worker/engines/http/engine.h"
#include "worker/engines/process/engine.h"
#include "worker/engines/simulate/simulate_engine.h"
#include "worker/pool/log.h"
#if PENSTOCK_WITH_LLAMA
#include "worker/engines/llama/device.h"
#include "worker/engines/llama/engine.h"
#endif

namespace penstock {
namespace {

using Opened = Result<std::unique_ptr<Engine>>;

openai::Rules rules_of(const WorkerOptions& options) {
  return {.lenient = options.lenient, .steering = options.steering};
}

Opened open_simulate(const WorkerOptions& options, Sink& sink) {
  auto parsed = simulate::parse_options(options.engine_options);
  if (!parsed) {
    return parsed.error();
  }
  return std::unique_ptr<Engine>(std::make_unique<simulate::SimulateEngine>(
      *parsed, options.model_name, sink, rules_of(options)));
}

Opened open_process(const WorkerOptions& options, Sink& sink) {
  auto parsed = process::parse_options(options.engine_options);
  if (!parsed) {
    return parsed.error();
  }
  parsed->environment = process::program_environment(environ);
  return process::ProcessEngine::open(std::move(*parsed), options.name, options.slots, sink,
                                      log_to_stderr());
}

// Headers that the operator wants sent may be secret: they come in the environment.
Opened open_http(const WorkerOptions& options, Sink& sink) {
  auto parsed = http_engine::parse_options(options.engine_options, std::getenv("PENSTOCK_HEADERS"));
  ::unsetenv("PENSTOCK_HEADERS");
  if (!parsed) {
    return parsed.error();
  }
  parsed->model = options.model_name;
  parsed->slots = options.slots;
  parsed->max_body_bytes = options.max_body_bytes;
  if (parsed->upstream_model.empty() && options.model != options.model_name) {
    parsed->upstream_model = options.model;  // model_name is what callers call it
  }
  return http_engine::open(*std::move(parsed), sink, bounded(log_to_stderr()));
}

#if PENSTOCK_WITH_LLAMA
Opened open_llama(const WorkerOptions& options, Sink& sink) {
  bool high_priority = true;
  bool sleeps = false;
  int64_t default_max_tokens = llama::kChatDefault;
  for (const auto& [key, value] : options.engine_options) {
    if (key == "gpu_priority" && (value == "high" || value == "low")) {
      high_priority = value == "high";
    } else if (key == "gpu_wait" && (value == "awake" || value == "asleep")) {
      sleeps = value == "asleep";
    } else if (key != "default_max_tokens" ||
               !parse_number<int64_t>(value, 1, UINT32_MAX, default_max_tokens)) {
      return Error{std::string("the llama engine has no option ")
                       .append(key)
                       .append("=")
                       .append(value)
                       .append("; it has gpu_priority=high or low, gpu_wait=awake or asleep, and "
                               "default_max_tokens=N, N from 1")};
    }
  }
  return llama::open({.model_dir = options.model,
                      .model_name = options.model_name,
                      .memory_bytes = options.memory_bytes,
                      .threads = options.threads,
                      .device = options.device,
                      .slots = options.slots,
                      .rules = rules_of(options),
                      .default_max_tokens = default_max_tokens,
                      .high_priority = high_priority,
                      .sleeps = sleeps,
                      .log = [](const std::string& line) { write_log(LogLevel::kInfo, line); }},
                     sink);
}
#else
Opened open_llama(const WorkerOptions&, Sink&) {
  return Error{"this worker was built without the llama engine"};
}
#endif

Status check_simulated(const WorkerOptions& options) {
  const auto parsed = simulate::parse_options(options.engine_options);
  return parsed ? simulate::check_device(*parsed) : Status(Ok{});  // open_simulate() says it
}

Status check_llama([[maybe_unused]] const WorkerOptions& options) {
#if PENSTOCK_WITH_LLAMA
  return llama::check_device(options.device);
#else
  return Ok{};
#endif
}

// What runs the jobs finds out for itself.
Status check_nothing(const WorkerOptions&) { return Ok{}; }

struct Entry {
  const char* name;
  Opened (*open)(const WorkerOptions&, Sink&);
  Status (*check)(const WorkerOptions&);
};
constexpr Entry kEngines[] = {{"http", open_http, check_nothing},
                              {"llama", open_llama, check_llama},
                              {"process", open_process, check_nothing},
                              {"simulate", open_simulate, check_simulated}};

}  // namespace

Result<std::unique_ptr<Engine>> open_engine(const WorkerOptions& options, Sink& sink) {
  std::string names;
  for (const Entry& entry : kEngines) {
    if (options.engine == entry.name) {
      return entry.open(options, sink);
    }
    names += std::string(names.empty() ? "" : ", ") + entry.name;
  }
  return Error{"there is no engine \"" + options.engine + "\"; there is " + names};
}

Status check_device(const WorkerOptions& options) {
  for (const Entry& entry : kEngines) {
    if (options.engine == entry.name) {
      return entry.check(options);
    }
  }
  return Ok{};  // open_engine() says what is wrong
}

}  // namespace penstock
