#include "shared/base/large_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace penstock {
namespace {

#ifndef MADV_COLLAPSE
constexpr int MADV_COLLAPSE = 25;
#endif

constexpr int kAccess = PROT_READ | PROT_WRITE;

// The whole large pages within.
std::span<std::byte> whole_pages(std::span<std::byte> memory) noexcept {
  const auto at = reinterpret_cast<uintptr_t>(memory.data());
  const size_t before = (kLargePageBytes - at % kLargePageBytes) % kLargePageBytes;
  if (before >= memory.size()) {
    return {};
  }
  const size_t size = (memory.size() - before) / kLargePageBytes * kLargePageBytes;
  return memory.subspan(before, size);
}

}  // namespace

std::span<std::byte> map_shared(size_t bytes, int fd) noexcept {
  // A place that is large enough wherever it lies; what is not needed of it goes back.
  const size_t room = bytes + kLargePageBytes;
  void* const found = mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) {
    return {};
  }
  auto* const begin = static_cast<std::byte*>(found);
  std::byte* const start =
      begin +
      (kLargePageBytes - reinterpret_cast<uintptr_t>(begin) % kLargePageBytes) % kLargePageBytes;
  const int flags = MAP_SHARED | MAP_FIXED | (fd < 0 ? MAP_ANONYMOUS : 0);
  if (mmap(start, bytes, kAccess, flags, fd, 0) == MAP_FAILED) {
    munmap(begin, room);
    return {};
  }
  if (start != begin) {
    munmap(begin, static_cast<size_t>(start - begin));
  }
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::byte* const end = start + (bytes + page - 1) / page * page;
  if (end < begin + room) {
    munmap(end, static_cast<size_t>(begin + room - end));
  }
  return {start, bytes};
}

bool remap_for_large_pages(std::span<std::byte> place) noexcept {
  const std::span<std::byte> pages = whole_pages(place);
  return pages.empty() || mmap(pages.data(), pages.size(), kAccess,
                               MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
}

void use_large_pages(std::span<std::byte> memory) noexcept {
  const std::span<std::byte> pages = whole_pages(memory);
  if (pages.empty()) {
    return;
  }
  madvise(pages.data(), pages.size(), MADV_HUGEPAGE);
  // Where there is nothing yet, nothing is gathered.
  for (size_t at = 0; at < pages.size(); at += kLargePageBytes) {
    *static_cast<volatile const std::byte*>(&pages[at]);
  }
  madvise(pages.data(), pages.size(), MADV_COLLAPSE);
}

}  // namespace penstock
