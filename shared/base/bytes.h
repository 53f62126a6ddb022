// Little-endian integers in unaligned memory.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace penstock {

static_assert(std::endian::native == std::endian::little, "Penstock runs on little-endian hosts");

template <typename T>
T load_le(const void* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
void store_le(void* to, T value) noexcept {
  std::memcpy(to, &value, sizeof value);
}

}  // namespace penstock
