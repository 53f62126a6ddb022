#include "worker/queue/api/edge_versions.h"

#include <gtest/gtest.h>

namespace penstock::queue {
namespace {

TEST(EdgeVersionsTest, EachKindIsOneAndTheLatestOfItIsNamed) {
  EdgeVersions edges;
  edges.note("0.1.0", 1, false, 10, 1);
  edges.note("0.1.0", 1, false, 11, 2);
  edges.note("0.2.0", 4, true, 12, 3);
  ASSERT_EQ(edges.kinds().size(), 2U);
  EXPECT_EQ(edges.kinds()[0].pid, 11);
  EXPECT_TRUE(edges.kinds()[1].refused);
}

TEST(EdgeVersionsTest, WhatAPeerSaysIsBounded) {
  EdgeVersions edges;
  edges.note(std::string(1000, 'x'), 1, false, 1, 1);
  edges.note("a\nb", 1, false, 1, 2);
  ASSERT_EQ(edges.kinds().size(), 1U);
  EXPECT_EQ(edges.kinds()[0].version, "?");
  for (uint64_t i = 0; i < 1000; ++i) {
    edges.note("1", i, false, 1, static_cast<int64_t>(10 + i));
  }
  EXPECT_EQ(edges.kinds().size(), EdgeVersions::kMost);
  EXPECT_EQ(edges.kinds().back().protocol, 999U);
}

}  // namespace
}  // namespace penstock::queue
