#include "worker/queue/order/order_tree.h"

#include <algorithm>

namespace penstock::queue {
namespace {

constexpr uint32_t kWidth = 32;  // entries of a page
constexpr uint64_t kNoTag = UINT64_MAX;

template <typename... Columns>
void prefetch(const Columns&... columns) noexcept {
  const auto lines = [](const char* from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 64) {
      __builtin_prefetch(from + at);
    }
  };
  (lines(reinterpret_cast<const char*>(columns), sizeof(columns)), ...);
}

}  // namespace

// The places of a page's entries. In an inner page that of a child is not after any member of it,
// and after every member of the child before.
struct OrderTree::Page {
  uint64_t tag[kWidth];  // kNoTag beyond `size`, so that a search need not know it
  uint64_t arrival[kWidth];
  uint32_t size = 0;

  Page() noexcept { std::fill(tag, tag + kWidth, kNoTag); }
  Place place(uint32_t at) const noexcept { return {tag[at], arrival[at]}; }
  void set_place(uint32_t at, const Place& place) noexcept {
    tag[at] = place.tag;
    arrival[at] = place.arrival;
  }

  // How many entries are before `place`. Without a branch but for those of the same tag.
  uint32_t entries_before(const Place& place) const noexcept {
    uint32_t at = 0;
    for (uint32_t step = kWidth / 2; step > 0; step /= 2) {
      at += tag[at + step - 1] < place.tag ? step : 0;
    }
    at += tag[at] < place.tag ? 1 : 0;
    while (at < size && tag[at] == place.tag && arrival[at] < place.arrival) {
      ++at;
    }
    return at;
  }
  // The child that `place` belongs in.
  uint32_t child_of(const Place& place) const noexcept {
    const uint32_t at = entries_before(place);
    const bool there = at < size && tag[at] == place.tag && arrival[at] == place.arrival;
    return there || at == 0 ? at : at - 1;
  }
};

struct OrderTree::Leaf : Page {
  uint32_t cost[kWidth];
  Node* member[kWidth];

  template <typename Do>
  static void columns(Leaf& a, Leaf& b, Do&& each) {
    each(a.tag, b.tag), each(a.arrival, b.arrival);
    each(a.cost, b.cost), each(a.member, b.member);
  }
  void set(uint32_t at, Node& node) noexcept {
    set_place(at, node.place);
    cost[at] = node.cost;
    member[at] = &node;
  }
  // Without a branch.
  Sum sum(uint32_t entries) const noexcept {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < kWidth; ++i) {
      sum += cost[i] & -uint64_t{i < entries};
    }
    return {entries, sum};
  }
};

// The children, and what is under each and those before it, so that no sum is ever made on the way
// down.
struct OrderTree::Inner : Page {
  Page* child[kWidth];
  Sum through[kWidth];

  template <typename Do>
  static void columns(Inner& a, Inner& b, Do&& each) {
    each(a.tag, b.tag), each(a.arrival, b.arrival);
    each(a.child, b.child), each(a.through, b.through);
  }
  // Of the first children.
  Sum sum(uint32_t children) const noexcept {
    return children == 0 ? Sum() : through[children - 1];
  }
  void add(uint32_t from, const Sum& change) noexcept {
    for (uint32_t i = from; i < size; ++i) {
      through[i] += change;
    }
  }
  void set(uint32_t at, const Entry& entry) noexcept;
};

// What an inner page says of a child.
struct OrderTree::Entry {
  Place low;
  Page* to = nullptr;
  Sum sum;

  template <typename Of>
  explicit Entry(Of* page) noexcept : low(page->place(0)), to(page), sum(page->sum(page->size)) {}
  Entry() = default;
};

// Into a gap.
void OrderTree::Inner::set(uint32_t at, const Entry& entry) noexcept {
  set_place(at, entry.low);
  child[at] = entry.to;
  through[at] = sum(at);
  add(at, entry.sum);
}

namespace {

// Makes room for an entry. REQUIRES: there is room.
template <typename Page>
void open(Page& page, uint32_t at) noexcept {
  Page::columns(page, page, [&](auto* column, auto*) {
    std::copy_backward(column + at, column + page.size, column + page.size + 1);
  });
  ++page.size;
}

template <typename Page>
void close(Page& page, uint32_t at) noexcept {
  Page::columns(page, page, [&](auto* column, auto*) {
    std::copy(column + at + 1, column + page.size, column + at);
  });
  page.tag[--page.size] = kNoTag;
}

// Moves the entries from `at` on behind those of `other`.
template <typename Page>
void move_tail(Page& page, uint32_t at, Page& other) noexcept {
  const uint32_t had = other.size;
  const auto stays = page.sum(at);
  const auto before = other.sum(had);
  Page::columns(page, other,
                [&](auto* from, auto* to) { std::copy(from + at, from + page.size, to + had); });
  std::fill(page.tag + at, page.tag + page.size, kNoTag);
  other.size += page.size - at;
  page.size = at;
  if constexpr (requires { other.through; }) {
    other.add(had, before - stays);
  }
}

// Puts an entry in. Returns the page's new right neighbour, if it had to be split. A full page is
// split in halves; but when the entry comes last, as most do in a queue, the page stays full and
// the entry starts the next.
template <typename Page, typename Entry>
Page* put(Page& page, uint32_t at, Entry& entry) {
  if (page.size < kWidth) {
    open(page, at);
    page.set(at, entry);
    return nullptr;
  }
  auto* const right = new Page;
  const uint32_t keep = at == kWidth ? kWidth : kWidth / 2;
  move_tail(page, keep, *right);
  Page& half = at < keep ? page : *right;
  at -= at < keep ? 0 : keep;
  open(half, at);
  half.set(at, entry);
  return right;
}

}  // namespace

OrderTree::~OrderTree() { free(root_, levels_); }

void OrderTree::free(Page* page, uint32_t level) noexcept {
  if (level == 0) {
    delete static_cast<Leaf*>(page);
    return;
  }
  auto* const inner = static_cast<Inner*>(page);
  for (uint32_t i = 0; i < inner->size; ++i) {
    free(inner->child[i], level - 1);
  }
  delete inner;
}

void OrderTree::insert(Node& node) {
  if (root_ == nullptr) {
    root_ = new Leaf;
  }
  Sum all = total_;
  all += {1, node.cost};
  if (Entry right = insert(*root_, levels_, node); right.to != nullptr) {
    auto* const top = new Inner;
    Entry left = right;
    left.low = root_->place(0);
    left.to = root_;
    left.sum = all - right.sum;
    put(*top, 0, left);
    put(*top, 1, right);
    root_ = top;
    ++levels_;
  }
  total_ = all;
}

// Returns the page's new right neighbour, or nothing.
OrderTree::Entry OrderTree::insert(Page& page, uint32_t level, Node& node) {
  if (level == 0) {
    auto& leaf = static_cast<Leaf&>(page);
    prefetch(leaf.tag, leaf.arrival, leaf.cost, leaf.member);
    Leaf* const right = put(leaf, leaf.entries_before(node.place), node);
    return right == nullptr ? Entry() : Entry(right);
  }
  auto& inner = static_cast<Inner&>(page);
  prefetch(inner.tag, inner.child);
  const uint32_t at = inner.child_of(node.place);
  if (node.place.before(inner.place(at))) {
    inner.set_place(at, node.place);
  }
  Entry beside = insert(*inner.child[at], level - 1, node);
  inner.add(at, Sum{1, node.cost} - beside.sum);
  if (beside.to == nullptr) {
    return beside;
  }
  Inner* const right = put(inner, at + 1, beside);
  return right == nullptr ? Entry() : Entry(right);
}

void OrderTree::erase(const Node& node) noexcept {
  erase(*root_, levels_, node);
  total_ = total_ - Sum{1, node.cost};
  while (levels_ > 0 && root_->size == 1) {
    auto* const top = static_cast<Inner*>(root_);
    root_ = top->child[0];
    --levels_;
    delete top;
  }
}

void OrderTree::erase(Page& page, uint32_t level, const Node& node) noexcept {
  if (level == 0) {
    auto& leaf = static_cast<Leaf&>(page);
    prefetch(leaf.tag, leaf.arrival, leaf.cost, leaf.member);
    close(leaf, leaf.entries_before(node.place));
    return;
  }
  auto& inner = static_cast<Inner&>(page);
  prefetch(inner.tag, inner.child);
  const uint32_t at = inner.child_of(node.place);
  erase(*inner.child[at], level - 1, node);
  inner.add(at, Sum() - Sum{1, node.cost});
  if (inner.child[at]->size <= kWidth / 4) {
    join_small_child(inner, level, at);
  }
}

void OrderTree::join_small_child(Inner& page, uint32_t level, uint32_t at) noexcept {
  const auto drop = [&](uint32_t gone) {
    level == 1 ? delete static_cast<Leaf*>(page.child[gone])
               : delete static_cast<Inner*>(page.child[gone]);
    close(page, gone);
  };
  if (page.child[at]->size == 0) {
    drop(at);
    return;
  }
  for (const uint32_t left : {at, at - 1}) {
    if (left >= page.size - 1) {  // also when at is 0: at - 1 wraps to the largest number
      continue;
    }
    Page* const a = page.child[left];
    Page* const b = page.child[left + 1];
    if (a->size + b->size <= kWidth * 3 / 4) {
      level == 1 ? move_tail(static_cast<Leaf&>(*b), 0, static_cast<Leaf&>(*a))
                 : move_tail(static_cast<Inner&>(*b), 0, static_cast<Inner&>(*a));
      page.through[left] = page.through[left + 1];
      drop(left + 1);
      return;
    }
  }
}

OrderTree::Node* OrderTree::first() const noexcept { return soon(0); }

OrderTree::Node* OrderTree::soon(uint32_t later) const noexcept {
  if (total_.count == 0) {
    return nullptr;
  }
  const Page* page = root_;
  for (uint32_t level = levels_; level > 0; --level) {
    page = static_cast<const Inner*>(page)->child[0];
  }
  return static_cast<const Leaf*>(page)->member[std::min(later, page->size - 1)];
}

// The leaf that `place` belongs in, and what is in those before; nullptr in an empty tree. What a
// page will be asked for is asked for while nothing waits for it yet.
const OrderTree::Leaf* OrderTree::leaf_of(const Place& place, Sum& before) const noexcept {
  const Page* page = root_;
  for (uint32_t level = levels_; level > 0; --level) {
    const auto& inner = static_cast<const Inner&>(*page);
    const uint32_t at = inner.child_of(place);
    page = inner.child[at];
    if (level > 1) {
      prefetch(page->tag, static_cast<const Inner*>(page)->child);
    } else {
      prefetch(page->tag, page->arrival, static_cast<const Leaf*>(page)->cost);
    }
    before += inner.sum(at);
  }
  return static_cast<const Leaf*>(page);
}

uint32_t OrderTree::rank(const Place& place) const noexcept {
  Sum all;
  const Leaf* const leaf = leaf_of(place, all);
  return leaf == nullptr ? 0 : all.count + leaf->entries_before(place);
}

OrderTree::Sum OrderTree::before(const Place& place) const noexcept {
  Sum all;
  const Leaf* const leaf = leaf_of(place, all);
  return leaf == nullptr ? all : all += leaf->sum(leaf->entries_before(place));
}

uint32_t OrderTree::first_costs(uint32_t* costs, uint32_t most) const noexcept {
  return root_ == nullptr ? 0 : first_costs(root_, levels_, costs, most);
}

uint32_t OrderTree::first_costs(const Page* page, uint32_t level, uint32_t* costs,
                                uint32_t most) noexcept {
  uint32_t written = 0;
  if (level == 0) {
    written = std::min(most, page->size);
    std::copy_n(static_cast<const Leaf*>(page)->cost, written, costs);
    return written;
  }
  for (uint32_t i = 0; i < page->size && written < most; ++i) {
    written += first_costs(static_cast<const Inner*>(page)->child[i], level - 1, costs + written,
                           most - written);
  }
  return written;
}

}  // namespace penstock::queue
