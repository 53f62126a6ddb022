#include "worker/queue/config/engine_keys.h"

#include <sstream>

#include "worker/queue/config/http_keys.h"
#include "worker/queue/config/process_keys.h"

namespace penstock::queue {
namespace {

// The simulate engine's keys, normalised for its command line; other engines refuse them.
void read_simulate(Section& section, WorkerConfig& worker) {
  auto& options = worker.options;
  const auto set = [&](const std::string& key, const std::string& name, const auto& read) {
    if (!section.given(key)) {
      return;
    }
    const std::string value = read(key);
    if (worker.engine != "simulate") {
      section.complain(key, "is for engine simulate, and this worker's is " + worker.engine);
    } else {
      options.emplace_back(name, value);
    }
  };
  const auto duration = [&](const std::string& key) {
    int64_t ns = 0;
    section.duration(key, ns, 0);
    return std::to_string(ns);
  };
  const auto whole = [&](uint32_t min, uint32_t max) {
    return [&section, min, max](const std::string& key) {
      uint32_t value = 0;
      section.number(key, value, min, max);
      return std::to_string(value);
    };
  };
  const auto size = [&](const std::string& key) {
    int64_t bytes = 0;
    section.size(key, bytes, 0, INT64_MAX);
    return std::to_string(bytes);
  };
  const auto fraction = [&](double max) {
    return [&section, max](const std::string& key) {
      double value = 0;
      section.fraction(key, value, 0, max);
      std::ostringstream out;
      out << value;
      return out.str();
    };
  };
  const auto distribution = [&](const std::string& key) {
    std::string value;
    section.choice(key, value, {"constant", "exponential", "lognormal"});
    return value;
  };
  set("service_time", "service_time_ns", duration);
  set("distribution", "distribution", distribution);
  set("sigma", "sigma", fraction(5));
  set("tokens_per_second", "tokens_per_second", fraction(1e9));
  set("output_tokens", "output_tokens", whole(1, 1'000'000));
  set("job_memory", "job_memory", size);
  set("parallel", "parallel", whole(1, 1'000'000));
  set("failure_rate", "failure_rate", fraction(1));
  set("seed", "seed", whole(0, UINT32_MAX));
  for (const char* const file : {"run_log", "occupancy", "faults", "crash_on"}) {
    set(file, file, [&](const std::string& key) {
      std::string value;
      section.text(key, value);
      return value;
    });
  }
}

// What requests may hold, of engines that read them here.
void read_rules(Section& section, WorkerConfig& worker) {
  for (const char* const key : {"lenient", "steering"}) {
    if (!section.given(key)) {
      continue;
    }
    bool on = false;
    section.boolean(key, on);
    if (worker.engine != "llama" && worker.engine != "simulate") {
      section.complain(key,
                       "is for engines llama and simulate, and this worker's is " + worker.engine);
    } else if (on) {
      worker.options.emplace_back(key, "true");
    }
  }
}

// Of two engines on one GPU, whose kernels go first; and how it is waited for.
void read_gpu_choice(Section& section, WorkerConfig& worker, const char* key,
                     const std::vector<std::string>& choices) {
  if (!section.given(key)) {
    return;
  }
  std::string choice;
  section.choice(key, choice, choices);
  if (worker.engine != "llama") {
    section.complain(key, "is for engine llama, and this worker's is " + worker.engine);
  }
  worker.options.emplace_back(key, choice);
}

// Of a chat that does not say how long its answer may be.
void read_default_max_tokens(Section& section, WorkerConfig& worker) {
  if (!section.given("default_max_tokens")) {
    return;
  }
  uint32_t tokens = 0;
  section.number("default_max_tokens", tokens, 1, UINT32_MAX);
  if (worker.engine != "llama") {
    section.complain("default_max_tokens",
                     "is for engine llama, and this worker's is " + worker.engine);
  }
  worker.options.emplace_back("default_max_tokens", std::to_string(tokens));
}

}  // namespace

void read_engine(Section& section, WorkerConfig& worker) {
  section.choice("engine", worker.engine, {"llama", "simulate", "http", "process"}, true);
  if (!section.has("engine")) {
    section.complain("engine", "is missing; write engine: llama, http, process or simulate");
  }
}

void read_engine_keys(Section& section, const std::string& file, WorkerConfig& worker) {
  section.be_silent(worker.engine.empty());  // nobody knows whose keys are right
  read_rules(section, worker);
  read_http_keys(section, file, worker);
  read_process_keys(section, file, worker);
  read_gpu_choice(section, worker, "gpu_priority", {"high", "low"});
  read_gpu_choice(section, worker, "gpu_wait", {"awake", "asleep"});
  read_default_max_tokens(section, worker);
  read_simulate(section, worker);
  section.be_silent(false);
}

}  // namespace penstock::queue
