// Which devices a worker, and penstockd itself, may see.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "worker/queue/config/config.h"

namespace penstock::queue {

// Whether it names that device.
inline bool lists(const WorkerConfig& worker, std::string_view device) {
  return std::find(worker.devices.begin(), worker.devices.end(), device) != worker.devices.end();
}

// Numbers of devices count those that our own environment lists, if it lists any.
inline bool numbers_are_the_drivers() { return std::getenv("CUDA_VISIBLE_DEVICES") == nullptr; }
inline std::vector<std::string> visible_numbers() {
  std::vector<std::string> numbers;
  const char* const ours = std::getenv("CUDA_VISIBLE_DEVICES");
  std::istringstream list(ours == nullptr ? "" : ours);
  for (std::string each; std::getline(list, each, ',');) {
    numbers.push_back(std::to_string(numbers.size()));
  }
  return numbers;
}

}  // namespace penstock::queue
