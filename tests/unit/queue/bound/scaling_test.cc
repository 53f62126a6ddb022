#include "worker/queue/config/scaled_workers.h"

#include <gtest/gtest.h>

namespace penstock::queue {
namespace {

WorkerConfig worker(const char* name, uint32_t slots) {
  WorkerConfig worker;
  worker.name = name;
  worker.slots = slots;
  worker.memory_bytes = 1000;
  return worker;
}

TEST(ScalingTest, ThereIsAProcessForEachDeviceUntilSomebodyWishesOtherwise) {
  Scaling scaling;
  WorkerConfig two = worker("a", 7);
  two.devices = {"0", "1"};
  EXPECT_EQ(scaled_workers({two, worker("b", 2)}, scaling).size(), 3U);
  scaling.set("a", 5);
  const auto processes = scaled_workers({two, worker("b", 2)}, scaling);
  ASSERT_EQ(processes.size(), 6U);
  for (uint32_t i = 0; i < 5; ++i) {
    EXPECT_EQ(Scaling::worker_of(processes[i].name), "a");
    EXPECT_EQ(processes[i].slots, 7U) << "the budget bounds them together";
  }
  EXPECT_EQ(processes.back(), worker("b", 2));
}

TEST(ScalingTest, TheFirstKeepsTheNameAndOthersAreNumbered) {
  Scaling scaling;
  EXPECT_EQ(scaled_workers({worker("a", 3)}, scaling), std::vector{worker("a", 3)});
  scaling.set("a", 3);
  const auto processes = scaled_workers({worker("a", 3)}, scaling);
  EXPECT_EQ(processes[0].name, "a");
  EXPECT_EQ(processes[1].name, "a#2");
  EXPECT_EQ(processes[2].name, "a#3");
}

TEST(ScalingTest, AStoppedOneStaysWithoutSlots) {
  Scaling scaling;
  scaling.set("a", 0);
  const auto processes = scaled_workers({worker("a", 3)}, scaling);
  ASSERT_EQ(processes.size(), 1U);
  EXPECT_EQ(processes[0].slots, 0U);
}

TEST(ScalingTest, WishesFollowTheConfiguration) {
  Scaling scaling;
  scaling.set("a", 4);
  EXPECT_EQ(scaled_workers({worker("a", 2)}, scaling).size(), 2U);  // there are no more slots
  EXPECT_EQ(scaling.of(scaling_of(worker("a", 2))), 2U);
  EXPECT_TRUE(scaled_workers({}, scaling).empty());
  EXPECT_EQ(scaled_workers({worker("a", 2)}, scaling).size(), 1U)
      << "it is another worker of that name";
}

}  // namespace
}  // namespace penstock::queue
