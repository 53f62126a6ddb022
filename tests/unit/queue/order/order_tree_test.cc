#include "worker/queue/order/order_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

namespace penstock::queue {
namespace {

TEST(OrderTreeTest, SmallerTagsThenEarlierArrivalsGoFirst) {
  EXPECT_TRUE((Place{1, 9}).before(Place{2, 1}));
  EXPECT_TRUE((Place{1, 1}).before(Place{1, 2}));
  EXPECT_FALSE((Place{1, 1}).before(Place{1, 1}));
}

TEST(OrderTreeTest, AnEmptyTreeHasNoFirst) {
  OrderTree tree;
  EXPECT_EQ(tree.first(), nullptr);
  EXPECT_EQ(tree.size(), 0U);
  EXPECT_EQ(tree.rank({0, 7}), 0U);
  EXPECT_EQ(tree.before({0, 7}).count, 0U);
}

// Random steps beside a sorted vector, growing to thousands of members and shrinking to none, so
// that pages split, join and go at every level.
class OrderTreeModelTest : public testing::TestWithParam<uint64_t> {
 protected:
  static bool before(const OrderTree::Node* a, const OrderTree::Node* b) {
    return a->place.before(b->place);
  }

  void insert() {
    OrderTree::Node& node = nodes_.emplace_back();
    const uint64_t tag = random_() % 3 == 0 ? random_() % 1000 : ++tag_;  // most come last
    node.place = {tag, ++arrival_};
    node.cost = static_cast<uint32_t>(random_() % 100'000);
    tree_.insert(node);
    sorted_.insert(std::lower_bound(sorted_.begin(), sorted_.end(), &node, before), &node);
  }
  void erase() {
    const size_t at = random_() % 2 == 0 ? 0 : random_() % sorted_.size();
    tree_.erase(*sorted_[at]);
    sorted_.erase(sorted_.begin() + static_cast<ptrdiff_t>(at));
  }
  void check() {
    ASSERT_EQ(tree_.size(), sorted_.size());
    ASSERT_EQ(tree_.first(), sorted_.empty() ? nullptr : sorted_.front());
    if (sorted_.empty()) {
      return;
    }
    const size_t rank = random_() % sorted_.size();
    uint64_t cost = 0;
    for (size_t i = 0; i < rank; ++i) {
      cost += sorted_[i]->cost;
    }
    ASSERT_EQ(tree_.before(sorted_[rank]->place).count, rank);
    ASSERT_EQ(tree_.before(sorted_[rank]->place).cost, cost);
    ASSERT_EQ(tree_.rank(sorted_[rank]->place), rank);
    std::vector<uint32_t> costs(100);
    costs.resize(tree_.first_costs(costs.data(), 100));
    ASSERT_EQ(costs.size(), std::min<size_t>(100, sorted_.size()));
    for (size_t i = 0; i < costs.size(); ++i) {
      ASSERT_EQ(costs[i], sorted_[i]->cost);
    }
    const Place nobodys{random_() % 4000, random_() % (2 * arrival_)};
    const auto after = std::partition_point(sorted_.begin(), sorted_.end(), [&](const auto* each) {
      return each->place.before(nobodys);
    });
    ASSERT_EQ(tree_.rank(nobodys), after - sorted_.begin());
    ASSERT_EQ(tree_.before(nobodys).count, after - sorted_.begin());
    ASSERT_EQ(tree_.rank({UINT64_MAX, UINT64_MAX}), sorted_.size());
    ASSERT_EQ(tree_.before({UINT64_MAX, UINT64_MAX}).cost, tree_.total().cost);
  }

  std::mt19937_64 random_{GetParam()};
  OrderTree tree_;
  std::deque<OrderTree::Node> nodes_;
  std::vector<OrderTree::Node*> sorted_;
  uint64_t tag_ = 0;
  uint64_t arrival_ = 0;
};

TEST_P(OrderTreeModelTest, AgreesWithASortedListInOrderRankAndCost) {
  for (const uint64_t inserts_of_ten : {7U, 3U, 6U, 2U}) {
    for (int step = 0; step < 8'000; ++step) {
      sorted_.empty() || random_() % 10 < inserts_of_ten ? insert() : erase();
      if (step % 7 == 0) {
        ASSERT_NO_FATAL_FAILURE(check());
      }
    }
  }
  while (!sorted_.empty()) {
    erase();
    if (sorted_.size() % 5 == 0) {
      ASSERT_NO_FATAL_FAILURE(check());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, OrderTreeModelTest, testing::Range<uint64_t>(1, 5));

}  // namespace
}  // namespace penstock::queue
