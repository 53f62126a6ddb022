#include "worker/queue/order_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

namespace penstock::queue {
namespace {

TEST(OrderTreeTest, HigherClassesThenSmallerTagsThenEarlierArrivalsGoFirst) {
  EXPECT_TRUE((Place{10, 5, 9}).before(Place{0, 1, 1}));
  EXPECT_TRUE((Place{0, 1, 9}).before(Place{0, 2, 1}));
  EXPECT_TRUE((Place{0, 1, 1}).before(Place{0, 1, 2}));
  EXPECT_FALSE((Place{0, 1, 1}).before(Place{0, 1, 1}));
}

TEST(OrderTreeTest, AnEmptyTreeHasNoFirst) {
  OrderTree tree;
  EXPECT_EQ(tree.first(), nullptr);
  EXPECT_EQ(tree.size(), 0U);
  EXPECT_EQ(tree.before(Place{0, 0, 7}), 0U);
}

// Ten thousand random steps beside a sorted vector.
TEST(OrderTreeTest, AgreesWithASortedListInOrderRankAndSize) {
  std::mt19937_64 random(7);
  OrderTree tree;
  std::deque<OrderTree::Node> nodes;
  std::vector<OrderTree::Node*> sorted;
  const auto before = [](const OrderTree::Node* a, const OrderTree::Node* b) {
    return a->place.before(b->place);
  };
  for (uint64_t step = 0; step < 10'000; ++step) {
    if (sorted.empty() || random() % 5 < 3) {
      OrderTree::Node& node = nodes.emplace_back();
      node.place = {static_cast<int64_t>(random() % 3), random() % 4, step};
      tree.insert(node);
      sorted.insert(std::lower_bound(sorted.begin(), sorted.end(), &node, before), &node);
    } else {
      const auto victim = sorted.begin() + static_cast<ptrdiff_t>(random() % sorted.size());
      tree.erase(**victim);
      sorted.erase(victim);
    }
    ASSERT_EQ(tree.size(), sorted.size());
    ASSERT_EQ(tree.first(), sorted.empty() ? nullptr : sorted.front());
    if (!sorted.empty()) {
      const size_t rank = random() % sorted.size();
      ASSERT_EQ(tree.before(sorted[rank]->place), rank);
    }
  }
}

}  // namespace
}  // namespace penstock::queue
