// penstock.yaml from anyone: no text may crash the parser, run away, or pass without its promises.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "worker/queue/config/load_config.h"

namespace {

// A device has one name: two would have a bound each.
bool distinct(std::vector<std::string> devices) {
  for (const std::string& device : devices) {
    if (device.empty() || (device.size() > 1 && device[0] == '0')) {
      return false;
    }
  }
  std::sort(devices.begin(), devices.end());
  return std::adjacent_find(devices.begin(), devices.end()) == devices.end();
}

constexpr int64_t kMaxMemoryBytes = int64_t{1} << 50;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = penstock::queue::parse_config(text, "fuzz.yaml");
  if (!config) {
    return config.error().message.empty() ? (std::abort(), 1) : 0;
  }
  if (config->socket.empty() || config->queues.empty()) {
    std::abort();
  }
  for (const auto& worker : config->workers) {
    if (worker.name.empty() || worker.model_name.empty() || worker.slots == 0 ||
        worker.devices.empty() || !distinct(worker.devices) ||
        worker.memory_bytes > kMaxMemoryBytes) {
      std::abort();
    }
  }
  std::vector<std::string> devices;
  for (const auto& device : config->devices) {
    devices.push_back(device.id);
    if (device.memory_bytes > kMaxMemoryBytes) {
      std::abort();
    }
  }
  if (!distinct(devices)) {
    std::abort();
  }
  return 0;
}
