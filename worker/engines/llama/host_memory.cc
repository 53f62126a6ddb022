#include "worker/engines/llama/host_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

namespace penstock::llama {

Result<Buffer> HostMemoryBackend::allocate(int64_t bytes) {
  // NORESERVE: a cache pool may be larger than what is ever touched; pages are committed as they
  // are written.
  void* at = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    return Error{"cannot map " + std::to_string(bytes) + " bytes of memory: " + strerror(errno) +
                 "; give the model less `memory`"};
  }
  return Buffer(static_cast<std::byte*>(at), bytes,
                [](std::byte* data, int64_t size) { munmap(data, static_cast<size_t>(size)); });
}

Status HostMemoryBackend::read(ConstTensor from, std::span<float> to) {
  std::memcpy(to.data(), from.data, to.size_bytes());
  return Ok{};
}

Status HostMemoryBackend::write(std::span<const float> from, Tensor to) {
  std::memcpy(to.data, from.data(), from.size_bytes());
  return Ok{};
}

}  // namespace penstock::llama
