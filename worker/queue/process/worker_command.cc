#include "worker/queue/process/worker_command.h"

#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <sstream>
#include <string_view>

#include "worker/queue/process/child.h"

namespace penstock::queue {
namespace {

constexpr std::string_view kVisible = "CUDA_VISIBLE_DEVICES=";
const std::string kOfPrograms = "PENSTOCK_PROGRAM_";  // worker/engines/process/options.h

}  // namespace

std::vector<std::string> worker_command(const std::string& binary, const WorkerConfig& worker,
                                        const LimitsConfig& limits, const LogSettings& log) {
  std::vector<std::string> command = {binary, "--fd", std::to_string(Child::kSocketFd)};
  const auto add = [&](const char* name, const std::string& value) {
    command.emplace_back(name);
    command.push_back(value);
  };
  add("--name", worker.name);
  add("--engine", worker.engine);
  if (const std::string& model = worker.model_path.empty() ? worker.model : worker.model_path;
      !model.empty()) {
    add("--model", model);
  }
  add("--model-name", worker.model_name);
  add("--slots", std::to_string(worker.slots));
  add("--memory", std::to_string(worker.memory_bytes));
  if (worker.memory_bytes > 0 && !worker.reserves_memory()) {
    command.emplace_back("--claim-memory");
  }
  add("--max-body", std::to_string(limits.max_body_bytes));
  // It sees that one alone; one that may be the CPU where no GPU answers is still told so.
  add("--device", is_shared_device(worker.device) && worker.devices.front() != "auto"
                      ? "0"
                      : worker.devices.front());
  add("--threads", std::to_string(worker.threads));
  if (worker.engine == "http") {
    add("--option", "url=" + worker.device);
  }
  if (log.level != LogSettings().level) {
    add("--log-level", std::string(name_of(log.level)));
  }
  if (log.format != LogSettings().format) {
    add("--log-format", std::string(name_of(log.format)));
  }
  for (const auto& [key, value] : worker.options) {
    add("--option", std::string(key).append("=").append(value));
  }
  return command;
}

namespace {

Result<std::vector<std::string>> environment_of_device(const std::string& device) {
  if (device == "auto") {
    return std::vector<std::string>{};
  }
  if (device == "cpu") {
    return std::vector<std::string>{std::string(kVisible)};
  }
  std::string seen = device;
  const char* const ours = std::getenv("CUDA_VISIBLE_DEVICES");
  if (ours != nullptr && device.find_first_not_of("0123456789") == std::string::npos) {
    std::istringstream list(ours);
    const int number = std::stoi(device);  // three digits at most
    int at = -1;
    while (at < number && std::getline(list, seen, ',')) {
      ++at;
    }
    if (at < number) {
      return Error{"there is no device " + device + ": CUDA_VISIBLE_DEVICES is \"" + ours +
                   "\", and numbers count what it lists"};
    }
  }
  std::vector<std::string> environment = {std::string(kVisible) + seen};
  if (ours == nullptr) {  // else its numbers are of whatever order it was made for
    environment.emplace_back("CUDA_DEVICE_ORDER=PCI_BUS_ID");
  }
  return environment;
}

}  // namespace

Result<std::vector<std::string>> worker_environment(const WorkerConfig& worker) {
  const bool http = worker.engine == "http";  // whose device is an url
  auto environment = environment_of_device(http ? "auto" : worker.device);
  if (environment) {
    for (const std::string& each : worker.environment) {
      environment->push_back((http ? "PENSTOCK_" : kOfPrograms) + each);
    }
  }
  return environment;
}

std::string binary_beside_this(const std::string& name) {
  char path[PATH_MAX];
  const ssize_t size = ::readlink("/proc/self/exe", path, sizeof path);
  const std::string self(path, size > 0 ? static_cast<size_t>(size) : 0);
  return self.substr(0, self.rfind('/') + 1) + name;
}

}  // namespace penstock::queue
