#include "worker/queue/order_tree.h"

#include <algorithm>

namespace penstock::queue {
namespace {

constexpr uint32_t kWidth = 32;  // entries of a page: about 1.4 KB

}  // namespace

// One entry of a page: a member, or a child with what is under it. In an inner page `low` is not
// after any member of that child, and after every member of the one before.
struct OrderTree::Entry {
  Place low;
  void* to;
  uint64_t cost;
  uint32_t count;
};

// The entries of a page, field by field, so that a search and a sum each read few cache lines.
struct OrderTree::Page {
  uint32_t size = 0;
  bool leaf = true;
  Place low[kWidth];
  uint32_t count[kWidth];
  uint64_t cost[kWidth];
  void* to[kWidth];

  Node* member(uint32_t at) const noexcept { return static_cast<Node*>(to[at]); }
  Page* child(uint32_t at) const noexcept { return static_cast<Page*>(to[at]); }

  // How many entries begin before `place`.
  uint32_t entries_before(const Place& place) const noexcept {
    return static_cast<uint32_t>(
        std::lower_bound(low, low + size, place,
                         [](const Place& a, const Place& b) { return a.before(b); }) -
        low);
  }
  // The child that `place` belongs in.
  uint32_t child_of(const Place& place) const noexcept {
    const auto* const after = std::upper_bound(
        low, low + size, place, [](const Place& a, const Place& b) { return a.before(b); });
    return after == low ? 0 : static_cast<uint32_t>(after - low) - 1;
  }
  Sum sum(uint32_t entries) const noexcept {
    Sum sum;
    for (uint32_t i = 0; i < entries; ++i) {
      sum.count += count[i];
      sum.cost += cost[i];
    }
    return sum;
  }
  Entry as_entry() noexcept {
    const Sum all = sum(size);
    return {low[0], this, all.cost, all.count};
  }
  void set(uint32_t at, const Entry& entry) noexcept {
    low[at] = entry.low;
    to[at] = entry.to;
    cost[at] = entry.cost;
    count[at] = entry.count;
  }
  Entry get(uint32_t at) const noexcept { return {low[at], to[at], cost[at], count[at]}; }
  // REQUIRES: room.
  void insert(uint32_t at, const Entry& entry) noexcept {
    std::copy_backward(low + at, low + size, low + size + 1);
    std::copy_backward(to + at, to + size, to + size + 1);
    std::copy_backward(cost + at, cost + size, cost + size + 1);
    std::copy_backward(count + at, count + size, count + size + 1);
    set(at, entry);
    ++size;
  }
  void remove(uint32_t at) noexcept {
    std::copy(low + at + 1, low + size, low + at);
    std::copy(to + at + 1, to + size, to + at);
    std::copy(cost + at + 1, cost + size, cost + at);
    std::copy(count + at + 1, count + size, count + at);
    --size;
  }
  // Moves the entries from `at` on behind those of `other`.
  void move_tail(uint32_t at, Page& other) noexcept {
    for (uint32_t i = at; i < size; ++i) {
      other.set(other.size++, get(i));
    }
    size = at;
  }
};

OrderTree::~OrderTree() { free(root_); }

void OrderTree::free(Page* page) noexcept {
  if (page != nullptr && !page->leaf) {
    for (uint32_t i = 0; i < page->size; ++i) {
      free(page->child(i));
    }
  }
  delete page;
}

void OrderTree::insert(Node& node) {
  if (root_ == nullptr) {
    root_ = new Page;
  }
  if (Page* const right = insert(*root_, node); right != nullptr) {
    auto* const top = new Page;
    top->leaf = false;
    top->insert(0, root_->as_entry());
    top->insert(1, right->as_entry());
    root_ = top;
  }
  ++total_.count;
  total_.cost += node.cost;
}

// Returns the page's new right neighbour, if it had to be split.
OrderTree::Page* OrderTree::insert(Page& page, Node& node) {
  if (page.leaf) {
    return add(page, page.entries_before(node.place), {node.place, &node, node.cost, 1});
  }
  const uint32_t at = page.child_of(node.place);
  Page* const right = insert(*page.child(at), node);
  if (node.place.before(page.low[at])) {
    page.low[at] = node.place;
  }
  page.count[at] += 1;
  page.cost[at] += node.cost;
  if (right == nullptr) {
    return nullptr;
  }
  const Entry entry = right->as_entry();
  page.count[at] -= entry.count;
  page.cost[at] -= entry.cost;
  return add(page, at + 1, entry);
}

// A full page is split in halves; but when the entry comes last, as most do in a queue, the page
// stays full and the entry starts the next.
OrderTree::Page* OrderTree::add(Page& page, uint32_t at, const Entry& entry) {
  if (page.size < kWidth) {
    page.insert(at, entry);
    return nullptr;
  }
  auto* const right = new Page;
  right->leaf = page.leaf;
  const uint32_t keep = at == kWidth ? kWidth : kWidth / 2;
  page.move_tail(keep, *right);
  at < keep ? page.insert(at, entry) : right->insert(at - keep, entry);
  return right;
}

void OrderTree::erase(const Node& node) noexcept {
  erase(*root_, node);
  --total_.count;
  total_.cost -= node.cost;
  while (!root_->leaf && root_->size == 1) {
    Page* const only = root_->child(0);
    delete root_;
    root_ = only;
  }
}

void OrderTree::erase(Page& page, const Node& node) noexcept {
  if (page.leaf) {
    page.remove(page.entries_before(node.place));
    return;
  }
  const uint32_t at = page.child_of(node.place);
  erase(*page.child(at), node);
  page.count[at] -= 1;
  page.cost[at] -= node.cost;
  join_small_child(page, at);
}

void OrderTree::join_small_child(Page& page, uint32_t at) noexcept {
  Page* const child = page.child(at);
  if (child->size == 0) {
    delete child;
    page.remove(at);
    return;
  }
  if (child->size > kWidth / 4) {
    return;
  }
  for (const uint32_t left : {at, at - 1}) {
    if (left >= page.size - 1) {  // also when at is 0: at - 1 wraps to the largest number
      continue;
    }
    Page* const right = page.child(left + 1);
    if (page.child(left)->size + right->size <= kWidth * 3 / 4) {
      right->move_tail(0, *page.child(left));
      page.count[left] += page.count[left + 1];
      page.cost[left] += page.cost[left + 1];
      delete right;
      page.remove(left + 1);
      return;
    }
  }
}

OrderTree::Node* OrderTree::first() const noexcept {
  if (total_.count == 0) {
    return nullptr;
  }
  const Page* page = root_;
  while (!page->leaf) {
    page = page->child(0);
  }
  return page->member(0);
}

OrderTree::Node* OrderTree::first_from(const Place& place) const noexcept {
  const Page* next = nullptr;  // the subtree that follows
  const Page* page = root_;
  while (page != nullptr && !page->leaf) {
    const uint32_t at = page->child_of(place);
    if (at + 1 < page->size) {
      next = page->child(at + 1);
    }
    page = page->child(at);
  }
  const uint32_t at = page == nullptr ? 0 : page->entries_before(place);
  if (page != nullptr && at < page->size) {
    return page->member(at);
  }
  while (next != nullptr && !next->leaf) {
    next = next->child(0);
  }
  return next == nullptr ? nullptr : next->member(0);
}

OrderTree::Sum OrderTree::before(const Place& place) const noexcept {
  Sum all;
  for (const Page* page = root_; page != nullptr;) {
    const uint32_t at = page->leaf ? page->entries_before(place) : page->child_of(place);
    const Sum part = page->sum(at);
    all.count += part.count;
    all.cost += part.cost;
    page = page->leaf ? nullptr : page->child(at);
  }
  return all;
}

}  // namespace penstock::queue
