// How a piece of shared memory says what it is: the first 24 bytes of everything in this folder.
//
// A reload, and every worker, finds the memory by address alone. The stamp tells whether what is
// there is whole, of this version, and as large as it was made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "shared/base/result.h"

namespace penstock::metrics {

constexpr size_t kCacheLine = 64;

struct Stamp {
  uint64_t magic;  // written last, so that what its maker didn't finish isn't taken for whole
  uint64_t version;
  uint64_t bytes;  // of the memory, all of it
};

// An Error if `memory` isn't aligned to a cache line or is smaller than `least_bytes`. `what` names
// in the messages what the memory is for, e.g. "counter registry".
Status check_memory(std::span<std::byte> memory, size_t least_bytes, std::string_view what);

// An Error that says why the stamp at the front of `memory` isn't `magic` and `version`, or was not
// made for as many bytes. Checks the memory first.
Status check_stamp(std::span<std::byte> memory, size_t least_bytes, uint64_t magic,
                   uint64_t version, std::string_view what);

// Zeroes the memory, which also brings every page in, so that no request waits for one or dies for
// lack of memory. write_stamp() is then the last step of making something in it.
void clear(std::span<std::byte> memory) noexcept;
void write_stamp(std::span<std::byte> memory, uint64_t magic, uint64_t version) noexcept;

}  // namespace penstock::metrics
