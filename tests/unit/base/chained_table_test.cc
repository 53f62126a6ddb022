#include "shared/base/chained_table.h"

#include <gtest/gtest.h>

#include <deque>

namespace penstock {
namespace {

struct Member {
  uint64_t key = 0;
  Member* next_in_table = nullptr;
  uint64_t hash() const { return key / 2; }  // each but the first shares it with another
};

class ChainedTableTest : public testing::Test {
 protected:
  void insert(uint64_t many) {
    for (uint64_t key = 0; key < many; ++key) {
      table_.insert(members_.emplace_back(Member{.key = key}));
    }
  }
  Member* find(uint64_t key) const {
    return table_.find(key / 2, [&](const Member& each) { return each.key == key; });
  }

  std::deque<Member> members_;
  ChainedTable<Member> table_;
};

TEST_F(ChainedTableTest, FindsThoseOfOneHashApart) {
  EXPECT_EQ(find(0), nullptr);
  insert(1000);
  for (uint64_t key = 0; key < 1000; ++key) {
    EXPECT_EQ(find(key), &members_[key]);
  }
  EXPECT_EQ(find(1000), nullptr);
  EXPECT_EQ(table_.size(), 1000U);
}

TEST_F(ChainedTableTest, WhatIsErasedLeavesTheOthersWhereTheyAre) {
  insert(1000);
  for (uint64_t key = 0; key < 1000; key += 3) {
    table_.erase(members_[key]);
  }
  for (uint64_t key = 0; key < 1000; ++key) {
    EXPECT_EQ(find(key), key % 3 == 0 ? nullptr : &members_[key]);
  }
}

TEST_F(ChainedTableTest, AVisitMayEraseWhereItIs) {
  insert(1000);
  size_t seen = 0;
  table_.each([&](Member& member) {
    ++seen;
    table_.erase(member);
  });
  EXPECT_EQ(seen, 1000U);
  EXPECT_EQ(table_.size(), 0U);
  insert(10);  // it begins anew
  EXPECT_EQ(table_.size(), 10U);
}

}  // namespace
}  // namespace penstock
