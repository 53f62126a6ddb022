// Any bytes given as a .safetensors file must be refused or read within their bounds.
#include <cstdlib>

#include "worker/engines/llama/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const auto parsed = penstock::llama::Safetensors::parse(file, "fuzz");
  if (!parsed) {
    return 0;
  }
  for (const auto& [name, entry] : parsed->tensors()) {
    const bool inside =
        entry.data.empty() || (entry.data.data() >= file.data() &&
                               entry.data.data() + entry.data.size() <= file.data() + file.size());
    if (!inside) {
      std::abort();
    }
  }
  return 0;
}
