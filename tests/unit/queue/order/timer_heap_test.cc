#include "worker/queue/order/timer_heap.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <random>

namespace penstock::queue {
namespace {

TEST(TimerHeapTest, ErasingWhatIsNotInDoesNothing) {
  TimerHeap heap;
  TimerHeap::Node node;
  heap.erase(node);
  EXPECT_EQ(heap.first(), nullptr);
}

TEST(TimerHeapTest, AMemberMayBeMovedToAnotherTime) {
  TimerHeap heap;
  TimerHeap::Node early;
  TimerHeap::Node late;
  heap.set(early, 10);
  heap.set(late, 20);
  heap.set(early, 30);
  EXPECT_EQ(heap.first(), &late);
  heap.erase(late);
  EXPECT_EQ(heap.first(), &early);
  EXPECT_EQ(heap.next_ns(), 30);
}

TEST(TimerHeapTest, AgreesWithASortedMap) {
  std::mt19937_64 random(3);
  TimerHeap heap;
  std::array<TimerHeap::Node, 200> nodes;
  std::map<TimerHeap::Node*, int64_t> naive;
  for (int step = 0; step < 20'000; ++step) {
    TimerHeap::Node& node = nodes[random() % nodes.size()];
    if (random() % 3 == 0) {
      heap.erase(node);
      naive.erase(&node);
    } else {
      naive[&node] = static_cast<int64_t>(random() % 1000);
      heap.set(node, naive[&node]);
    }
    int64_t least = INT64_MAX;
    for (const auto& [member, due] : naive) {
      least = std::min(least, due);
    }
    ASSERT_EQ(heap.next_ns(), least);
  }
}

}  // namespace
}  // namespace penstock::queue
