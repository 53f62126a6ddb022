#include "worker/queue/order/timer_ring.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>

namespace penstock::queue {
namespace {

struct Member : TimerHeap::Node {
  explicit Member(int64_t due) : due_ns_(due) {}
  int64_t due_ns() const { return due_ns_; }
  int64_t due_ns_;
};
using Ring = TimerRing<Member>;

TEST(TimerRingTest, AnEmptyRingIsNeverDue) {
  Ring ring;
  EXPECT_EQ(ring.first(), nullptr);
  EXPECT_EQ(ring.next_ns(), INT64_MAX);
  EXPECT_TRUE(ring.takes(INT64_MIN));
}

TEST(TimerRingTest, TakesNoneThatIsDueBeforeTheLast) {
  Ring ring;
  Member first(10);
  Member second(20);
  ring.push(first);
  ring.push(second);
  EXPECT_FALSE(ring.takes(19));
  EXPECT_TRUE(ring.takes(20));
  ring.erase(first);
  ring.erase(second);
  EXPECT_TRUE(ring.takes(0));
}

TEST(TimerRingTest, AMemberKnowsWhetherItIsInARingOrAHeap) {
  Ring ring;
  TimerHeap heap;
  Member member(10);
  EXPECT_FALSE(Ring::has(member));
  heap.set(member, 10);
  EXPECT_FALSE(Ring::has(member));
  heap.erase(member);
  ring.push(member);
  EXPECT_TRUE(Ring::has(member));
  ring.erase(member);
  EXPECT_FALSE(Ring::has(member));
}

TEST(TimerRingTest, AgreesWithASortedMapWhoeverLeavesFirst) {
  std::mt19937_64 random(5);
  Ring ring;
  std::map<int64_t, std::unique_ptr<Member>> naive;
  int64_t now = 0;
  for (const uint64_t adds_of_ten : {8U, 2U, 6U, 1U}) {
    for (int step = 0; step < 20'000; ++step) {
      if (naive.empty() || random() % 10 < adds_of_ten) {
        ++now;
        ring.push(*(naive[now] = std::make_unique<Member>(now)));
      } else {
        // Now the first, now the last, now any; but seldom the very first, so that holes pile up.
        auto leaves = random() % 3 == 0 ? std::prev(naive.end())
                                        : naive.lower_bound(static_cast<int64_t>(
                                              naive.begin()->first + 1 + random() % 4096));
        leaves = leaves == naive.end() ? naive.begin() : leaves;
        ring.erase(*leaves->second);
        naive.erase(leaves);
      }
      ASSERT_EQ(ring.size(), naive.size());
      ASSERT_EQ(ring.first(), naive.empty() ? nullptr : naive.begin()->second.get());
      ASSERT_EQ(ring.next_ns(), naive.empty() ? INT64_MAX : naive.begin()->first);
    }
  }
}

}  // namespace
}  // namespace penstock::queue
