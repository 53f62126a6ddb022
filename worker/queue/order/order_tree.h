// OrderTree: an ordered set that knows each member's rank, and the cost of all that stands before
// it.
//
// A B+-tree (Bayer and McCreight, 1972; Comer, "The Ubiquitous B-Tree", 1979) whose inner pages
// keep, beside each child, how many members it and those before it have and what they cost. Insert,
// erase, rank and sum are O(log n). Pages that run empty are joined with a neighbour, so memory
// follows the members.
//
// Made for the cache: a page keeps its entries column by column, so that a search reads four lines
// of tags, asked for at once, and no member is touched on the way. At a million members only the
// last page is not in the cache: one wait for memory, where a binary tree has twenty.
//
// Members are not owned; they must not change while in.
#pragma once

#include <cstdint>

namespace penstock::queue {

// Where a job stands within its class. It is fixed when the job arrives, so the order never has to
// be redone.
struct Place {
  uint64_t tag = 0;      // start tag of start-time fair queueing (fair_share.h)
  uint64_t arrival = 0;  // unique

  bool before(const Place& other) const noexcept {
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

    Sum& operator+=(const Sum& other) noexcept {
      count += other.count;
      cost += other.cost;
      return *this;
    }
    Sum operator-(const Sum& other) const noexcept {
      return {count - other.count, cost - other.cost};
    }
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
  Node* first() const noexcept;  // nullptr when empty
  // One of the next to be first, of those beside it in its page: the `later`-th after it, or the
  // last there. nullptr when empty.
  Node* soon(uint32_t later) const noexcept;

  // The sum of what stands before a place. The place itself may be empty.
  uint32_t rank(const Place& place) const noexcept;
  Sum before(const Place& place) const noexcept;

  // Writes the costs of the first members, in their order, as many as there is room for. Returns
  // how many it wrote.
  uint32_t first_costs(uint32_t* costs, uint32_t most) const noexcept;

 private:
  struct Page;
  struct Leaf;
  struct Inner;
  struct Entry;
  const Leaf* leaf_of(const Place& place, Sum& before) const noexcept;
  Entry insert(Page& page, uint32_t level, Node& node);
  void erase(Page& page, uint32_t level, const Node& node) noexcept;
  static void join_small_child(Inner& page, uint32_t level, uint32_t at) noexcept;
  static uint32_t first_costs(const Page* page, uint32_t level, uint32_t* costs,
                              uint32_t most) noexcept;
  static void free(Page* page, uint32_t level) noexcept;

  Page* root_ = nullptr;
  uint32_t levels_ = 0;  // of inner pages
  Sum total_;
};

}  // namespace penstock::queue
