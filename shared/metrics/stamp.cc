#include "shared/metrics/stamp.h"

#include <cstring>
#include <string>

namespace penstock::metrics {

Status check_memory(std::span<std::byte> memory, size_t least_bytes, std::string_view what) {
  if (reinterpret_cast<uintptr_t>(memory.data()) % kCacheLine != 0) {
    return Error{"the memory of a " + std::string(what) + " must be aligned to " +
                 std::to_string(kCacheLine) + " bytes"};
  }
  if (memory.size() < least_bytes) {
    return Error{"a " + std::string(what) + " of " + std::to_string(memory.size()) +
                 " bytes is too small: use at least " + std::to_string(least_bytes)};
  }
  return Ok{};
}

Status check_stamp(std::span<std::byte> memory, size_t least_bytes, uint64_t magic,
                   uint64_t version, std::string_view what) {
  if (Status fit = check_memory(memory, least_bytes, what); !fit) {
    return fit;
  }
  const auto& stamp = *reinterpret_cast<const Stamp*>(memory.data());
  if (__atomic_load_n(&stamp.magic, __ATOMIC_ACQUIRE) != magic) {
    return Error{"there is no " + std::string(what) + " in this memory: create one"};
  }
  if (stamp.version != version) {
    return Error{"the " + std::string(what) + " is of version " + std::to_string(stamp.version) +
                 ", this program knows " + std::to_string(version) + ": create a new one"};
  }
  if (stamp.bytes != memory.size()) {
    return Error{"the " + std::string(what) + " was made for " + std::to_string(stamp.bytes) +
                 " bytes, the memory has " + std::to_string(memory.size()) +
                 ": keep the size, or create a new one"};
  }
  return Ok{};
}

void clear(std::span<std::byte> memory) noexcept { std::memset(memory.data(), 0, memory.size()); }

void write_stamp(std::span<std::byte> memory, uint64_t magic, uint64_t version) noexcept {
  auto& stamp = *reinterpret_cast<Stamp*>(memory.data());
  stamp.version = version;
  stamp.bytes = memory.size();
  __atomic_store_n(&stamp.magic, magic, __ATOMIC_RELEASE);
}

}  // namespace penstock::metrics
