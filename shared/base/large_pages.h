// Large pages (2 MiB) for memory that is far larger than what the processor keeps translations of:
// what is found at random in it is then found a good deal faster.
//
// Shared memory gets none by itself unless /sys/kernel/mm/transparent_hugepage/shmem_enabled says
// so, which it most often doesn't. Since Linux 6.1 pages that are there already may be gathered
// into large ones on demand, whatever it says (MADV_COLLAPSE); every process that maps the memory
// at the same place, by fork() for instance, has the good of it.
//
// It is a hint: where the system has no large pages to give, nothing changes.
#pragma once

#include <cstddef>
#include <span>

namespace penstock {

constexpr size_t kLargePageBytes = size_t{2} << 20;

// Puts what of `memory` are whole large pages into large pages, and brings them in if they are not
// yet. The contents stay. Takes a few milliseconds for each: call it once, before it is filled.
void use_large_pages(std::span<std::byte> memory) noexcept;

// Maps `bytes` of a file, or zeroed memory of no file where fd is -1, to be shared, at an address
// that large pages can have. Empty, with errno set, if there is none.
std::span<std::byte> map_shared(size_t bytes, int fd) noexcept;

// Puts shared memory of no file in place of what is mapped in `place`, as far as large pages reach
// in it: what maps that may have begun anywhere. False, with errno set, if there is none; then
// nothing may be mapped there.
bool remap_for_large_pages(std::span<std::byte> place) noexcept;

}  // namespace penstock
