// How many processes a worker should have.
#include "worker/queue/bound/autoscale.h"

#include <gtest/gtest.h>

#include "shared/base/clock.h"
#include "worker/queue/config/load_config.h"

namespace penstock::queue {
namespace {

class AutoscaleTest : public testing::Test {
 protected:
  // For so many seconds; the processes follow what is desired.
  void pass(int seconds, uint32_t running, int64_t wait_ns) {
    for (int i = 0; i < seconds; ++i) {
      now_ns_ += kNsPerSec;
      const uint32_t desired = scale_.desired(
          bounds_, {.processes = processes_, .slots = 4, .running = running, .wait_ns = wait_ns},
          now_ns_);
      changes_ += desired != processes_ ? 1 : 0;
      processes_ = desired;
    }
  }
  AutoscaleBounds bounds_{
      .min = 1, .max = 8, .target_wait_ns = 10 * kNsPerSec, .down_ns = 60 * kNsPerSec};
  Autoscale scale_;
  uint32_t processes_ = 1;
  int64_t now_ns_ = 0;
  int changes_ = 0;
};

TEST_F(AutoscaleTest, AWaitThatLastsBringsMoreUpToTheMost) {
  pass(4, 4, 30 * kNsPerSec);
  EXPECT_EQ(processes_, 1U) << "it may be a burst";
  pass(3, 4, 30 * kNsPerSec);
  EXPECT_EQ(processes_, 2U);
  pass(60, 8, 300 * kNsPerSec);
  EXPECT_EQ(processes_, 8U);
}

TEST_F(AutoscaleTest, ABurstThatIsOverSoonChangesNothing) {
  for (int i = 0; i < 20; ++i) {
    pass(3, 4, 30 * kNsPerSec);
    pass(3, 4, 5 * kNsPerSec);
  }
  EXPECT_EQ(changes_, 0);
}

TEST_F(AutoscaleTest, FewerOnlyOnceFewerWereEnoughForLong) {
  processes_ = 4;
  pass(59, 1, 0);
  EXPECT_EQ(processes_, 4U);
  pass(1, 12, 0);  // three of them were used
  pass(59, 1, 0);
  EXPECT_EQ(processes_, 3U);
  pass(61, 1, 0);
  EXPECT_EQ(processes_, 1U);
}

TEST_F(AutoscaleTest, AWaitThatIsShortEnoughKeepsWhatThereIs) {
  processes_ = 3;
  pass(600, 12, 5 * kNsPerSec);
  EXPECT_EQ(changes_, 0);
}

TEST_F(AutoscaleTest, ItStaysWithinItsBoundsWhateverWasBefore) {
  bounds_.min = 2;
  bounds_.max = 3;
  pass(1, 0, 0);
  EXPECT_EQ(processes_, 2U);
  processes_ = 9;
  pass(1, 0, 0);
  EXPECT_EQ(processes_, 3U);
}

std::string complaint(const std::string& keys) {
  const auto config = parse_config(
      "socket: /s\nworkers:\n  - { name: a, engine: simulate, device: [0, 1], slots: 2, " + keys +
          " }\n",
      "p.yaml");
  return config ? "" : config.error().message;
}

TEST(AutoscaleConfigTest, ReadsItsKeysAndSaysWhatIsWrong) {
  EXPECT_EQ(complaint("min_workers: 1, max_workers: 4, target_wait: 5s, scale_down_after: 1m"), "");
  EXPECT_NE(complaint("max_workers: 5").find("workers[0].max_workers"), std::string::npos);
  EXPECT_NE(complaint("min_workers: 3, max_workers: 2").find("is more than"), std::string::npos);
  EXPECT_NE(complaint("target_wait: 5s").find("write max_workers: 2"), std::string::npos);
}

}  // namespace
}  // namespace penstock::queue
