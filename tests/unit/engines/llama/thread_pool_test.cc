#include "worker/engines/llama/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <vector>

namespace penstock::llama {
namespace {

TEST(ThreadPoolTest, EveryIndexIsVisitedOnceWhateverThePieces) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t piece : {1, 3, 100, 5000}) {
      std::vector<int> visits(1000);
      pool.run(1000, piece, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          ++visits[i];
        }
      });
      EXPECT_EQ(visits, std::vector<int>(1000, 1)) << threads << " threads, pieces of " << piece;
    }
  }
}

TEST(ThreadPoolTest, LoopsFollowOneAnotherQuicklyAndAfterSleep) {
  ThreadPool pool(4);
  std::vector<int64_t> sums(64);  // not atomic: the thread sanitizer watches
  for (int loop = 0; loop < 2000; ++loop) {
    pool.run(64, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        sums[i] += i;
      }
    });
    if (loop % 500 == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // helpers stop spinning
    }
  }
  for (int64_t i = 0; i < 64; ++i) {
    EXPECT_EQ(sums[i], 2000 * i);
  }
}

TEST(ThreadPoolTest, PoolsWithoutWorkEndAtOnce) {
  for (int i = 0; i < 100; ++i) {
    ThreadPool pool(3);
  }
}

}  // namespace
}  // namespace penstock::llama
