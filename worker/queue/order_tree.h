// OrderTree: an ordered set that knows each member's rank.
//
// An intrusive treap (Seidel and Aragon, "Randomized Search Trees", 1996) whose nodes count their
// subtrees: insert, erase and rank are O(log n) expected, first is O(log n). It allocates nothing
// and owns nothing; a member is a Node inside its owner's object and must not move while it is in.
#pragma once

#include <cstdint>

namespace penstock::queue {

// Where a job stands. The tag is fixed when the job arrives, so the order never has to be redone.
// Higher classes go first; within a class the smaller tag, then the earlier arrival.
struct Place {
  int64_t priority = 0;
  uint64_t tag = 0;      // 0 for now: FIFO within the class
  uint64_t arrival = 0;  // unique

  bool before(const Place& other) const noexcept {
    if (priority != other.priority) {
      return priority > other.priority;
    }
    return tag != other.tag ? tag < other.tag : arrival < other.arrival;
  }
};

class OrderTree {
 public:
  struct Node {
    Place place;

   private:
    friend class OrderTree;
    Node* left_ = nullptr;
    Node* right_ = nullptr;
    Node* parent_ = nullptr;
    uint32_t count_ = 0;  // nodes in this subtree
    uint32_t heat_ = 0;   // a parent is never cooler than its children
  };

  // REQUIRES: node is in no tree, and no member has the same place.
  void insert(Node& node) noexcept;
  // REQUIRES: node is in this tree.
  void erase(Node& node) noexcept;

  Node* first() const noexcept;  // nullptr when empty
  uint32_t size() const noexcept { return count_of(root_); }
  // How many members stand before `place`, whose owner need not be a member.
  uint32_t before(const Place& place) const noexcept;

 private:
  static uint32_t count_of(const Node* node) noexcept { return node != nullptr ? node->count_ : 0; }
  Node*& link_to(Node& node) noexcept;
  void rotate_up(Node& child) noexcept;

  Node* root_ = nullptr;
};

}  // namespace penstock::queue
