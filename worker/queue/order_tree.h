// OrderTree: an ordered set that knows each member's rank, and the cost of all that stands before
// it.
//
// A B+-tree (Bayer and McCreight, 1972; Comer, "The Ubiquitous B-Tree", 1979) whose inner pages
// keep, beside each child, how many members it has and what they cost. Insert, erase, rank and sum
// are O(log n), and at a million members they touch four pages, of which the upper ones stay in
// the cache; a binary tree would miss it twenty times. Pages that run empty are joined with a
// neighbour, so memory follows the members. Members are not owned; they must not change while in.
#pragma once

#include <cstdint>

namespace penstock::queue {

// Where a job stands. The tag is fixed when the job arrives, so the order never has to be redone.
// Higher classes go first; within a class the smaller tag, then the earlier arrival.
struct Place {
  int64_t priority = 0;
  uint64_t tag = 0;      // start tag of start-time fair queueing (fair_share.h)
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
    uint32_t cost = 1;
  };
  struct Sum {
    uint32_t count = 0;
    uint64_t cost = 0;
  };

  OrderTree() = default;
  OrderTree(const OrderTree&) = delete;
  OrderTree& operator=(const OrderTree&) = delete;
  ~OrderTree();

  // REQUIRES: no member has the same place.
  void insert(Node& node);
  // REQUIRES: node is in this tree, with the place and the cost it came with.
  void erase(const Node& node) noexcept;

  uint32_t size() const noexcept { return total_.count; }
  const Sum& total() const noexcept { return total_; }
  Node* first() const noexcept;                         // nullptr when empty
  Node* first_from(const Place& place) const noexcept;  // the first that is not before it
  Sum before(const Place& place) const noexcept;        // its owner need not be a member

 private:
  struct Page;
  struct Entry;
  static Page* add(Page& page, uint32_t at, const Entry& entry);
  static Page* insert(Page& page, Node& node);
  static void erase(Page& page, const Node& node) noexcept;
  static void join_small_child(Page& page, uint32_t at) noexcept;
  static void free(Page* page) noexcept;

  Page* root_ = nullptr;
  Sum total_;
};

}  // namespace penstock::queue
