// penstock.yaml from anyone: no text may crash the parser, run away, or pass without its promises.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "worker/queue/config.h"

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
    if (worker.name.empty() || worker.model_name.empty() || worker.slots == 0) {
      std::abort();
    }
  }
  return 0;
}
