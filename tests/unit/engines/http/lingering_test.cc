#include "worker/engines/http/lingering.h"

#include <gtest/gtest.h>

namespace penstock::http_engine {
namespace {

using Jobs = std::vector<JobNumber>;

class LingeringTest : public ::testing::Test {
 protected:
  static constexpr int64_t kLinger = 2 * kNsPerSec;
  Lingering lingering;
  int64_t now_ns = 1;

  Jobs after(int64_t ns) {
    now_ns += ns;
    return lingering.take_free(now_ns);
  }
  Jobs told(uint64_t busy, uint64_t ours) {
    lingering.told(busy, ours, now_ns);
    return after(Lingering::kAskEveryNs);
  }
};

TEST_F(LingeringTest, WhereNobodyTellsASlotIsHeldForATime) {
  lingering.add(1, now_ns, kLinger);
  EXPECT_EQ(lingering.due_ns(), now_ns + kLinger);
  EXPECT_EQ(after(kLinger - 1), Jobs{});
  EXPECT_EQ(after(1), Jobs{1});
  EXPECT_EQ(lingering.due_ns(), INT64_MAX);
}

TEST_F(LingeringTest, ItIsFreeOnceTheServerHasSaidSoTwice) {
  lingering.add(1, now_ns, kLinger);
  EXPECT_EQ(told(3, 2), Jobs{});
  EXPECT_EQ(told(2, 2), Jobs{});
  EXPECT_EQ(told(3, 2), Jobs{}) << "that was a moment between two jobs of ours";
  EXPECT_EQ(told(2, 2), Jobs{});
  EXPECT_EQ(told(1, 2), Jobs{1});
}

TEST_F(LingeringTest, ItIsHeldForAsLongAsTheServerSaysButNotForEver) {
  lingering.add(1, now_ns, kLinger);
  const int64_t began_ns = now_ns;
  while (told(1, 0).empty()) {
  }
  EXPECT_NEAR(static_cast<double>(now_ns - began_ns), Lingering::kMostNs, kLinger);
}

TEST_F(LingeringTest, WhereTheOperatorSaysHowLongItIsNoLonger) {
  lingering.add(1, now_ns, kLinger, kLinger);
  EXPECT_EQ(told(1, 0), Jobs{});
  EXPECT_EQ(after(kLinger - Lingering::kAskEveryNs), Jobs{1});
}

TEST_F(LingeringTest, AServerThatFallsSilentIsNotWaitedFor) {
  lingering.add(1, now_ns, kLinger);
  after(kLinger - 1);
  EXPECT_EQ(told(1, 0), Jobs{});
  EXPECT_EQ(after(kNsPerSec), Jobs{1});
}

TEST_F(LingeringTest, OfSeveralTheOldestAreFreeFirst) {
  for (JobNumber job = 1; job <= 3; ++job) {
    lingering.add(job, now_ns, kLinger);
  }
  EXPECT_EQ(told(6, 5), Jobs{});
  EXPECT_EQ(told(6, 5), (Jobs{1, 2}));
  lingering.add(4, now_ns, kLinger);
  EXPECT_EQ(told(1, 0), Jobs{}) << "what was told before is not of this one";
  EXPECT_EQ(told(1, 0), Jobs{3});
}

}  // namespace
}  // namespace penstock::http_engine
