#include "shared/base/large_pages.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "shared/base/fd.h"

namespace penstock {
namespace {

constexpr size_t kSize = 3 * kLargePageBytes + 12345;

void fill(std::span<std::byte> memory) {
  for (size_t i = 0; i < memory.size(); ++i) {
    memory[i] = static_cast<std::byte>(i * 2654435761 >> 7);
  }
}

bool is_as_filled(std::span<const std::byte> memory) {
  for (size_t i = 0; i < memory.size(); ++i) {
    if (memory[i] != static_cast<std::byte>(i * 2654435761 >> 7)) {
      return false;
    }
  }
  return true;
}

bool is_zero(std::span<const std::byte> memory) {
  return std::all_of(memory.begin(), memory.end(), [](std::byte b) { return b == std::byte{}; });
}

TEST(LargePagesTest, SharedMemoryBeginsWhereALargePageCan) {
  const std::span<std::byte> memory = map_shared(kSize, -1);
  ASSERT_EQ(memory.size(), kSize);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % kLargePageBytes, 0u);
  use_large_pages(memory);
  EXPECT_TRUE(is_zero(memory));
  munmap(memory.data(), memory.size());
}

TEST(LargePagesTest, ContentsStayAndAreSharedWithAChild) {
  const std::span<std::byte> memory = map_shared(kSize, -1);
  ASSERT_FALSE(memory.empty());
  fill(memory);
  use_large_pages(memory);
  EXPECT_TRUE(is_as_filled(memory));
  const pid_t child = fork();
  if (child == 0) {
    const bool good = is_as_filled(memory);
    memory[kLargePageBytes] = std::byte{77};
    _exit(good ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(memory[kLargePageBytes], std::byte{77});
  munmap(memory.data(), memory.size());
}

TEST(LargePagesTest, AFilesMemoryIsTheFiles) {
  const Fd file(memfd_create("large", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(file.get(), kSize), 0);
  const std::span<std::byte> memory = map_shared(kSize, file.get());
  ASSERT_FALSE(memory.empty());
  use_large_pages(memory);
  memory[kSize - 1] = std::byte{5};
  char last = 0;
  EXPECT_EQ(pread(file.get(), &last, 1, kSize - 1), 1);
  EXPECT_EQ(last, 5);
  munmap(memory.data(), memory.size());
}

TEST(LargePagesTest, WhatIsPutInPlaceReachesAsFarAsWholeLargePages) {
  const std::span<std::byte> memory = map_shared(kSize, -1);
  ASSERT_FALSE(memory.empty());
  fill(memory);
  const std::span<std::byte> place = memory.subspan(4096);
  ASSERT_TRUE(remap_for_large_pages(place));
  EXPECT_TRUE(is_as_filled(memory.first(kLargePageBytes)));
  EXPECT_TRUE(is_zero(memory.subspan(kLargePageBytes, 2 * kLargePageBytes)));
  EXPECT_NE(memory.back(), std::byte{});
  munmap(memory.data(), memory.size());
}

TEST(LargePagesTest, WhatHasNoWholeLargePageStaysAsItIs) {
  const std::span<std::byte> memory = map_shared(4096, -1);
  ASSERT_EQ(memory.size(), 4096u);
  memory[0] = std::byte{1};
  EXPECT_TRUE(remap_for_large_pages(memory));
  use_large_pages(memory);
  EXPECT_EQ(memory[0], std::byte{1});
  munmap(memory.data(), memory.size());
}

TEST(LargePagesTest, MoreThanThereIsIsNoMemory) {
  EXPECT_TRUE(map_shared(size_t{1} << 60, -1).empty());
  EXPECT_TRUE(map_shared(4096, 1'000'000).empty());
}

}  // namespace
}  // namespace penstock
