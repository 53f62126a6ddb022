#include "worker/queue/order_tree.h"

namespace penstock::queue {
namespace {

// Spreads arrival numbers evenly (the finalizer of splitmix64): the treap's coin.
uint32_t heat_of(uint64_t arrival) noexcept {
  uint64_t x = arrival + 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return static_cast<uint32_t>((x ^ (x >> 31)) >> 32);
}

}  // namespace

OrderTree::Node*& OrderTree::link_to(Node& node) noexcept {
  if (node.parent_ == nullptr) {
    return root_;
  }
  return node.parent_->left_ == &node ? node.parent_->left_ : node.parent_->right_;
}

void OrderTree::insert(Node& node) noexcept {
  node.left_ = node.right_ = node.parent_ = nullptr;
  node.count_ = 1;
  node.heat_ = heat_of(node.place.arrival);
  Node** link = &root_;
  while (*link != nullptr) {
    Node* const parent = *link;
    ++parent->count_;
    node.parent_ = parent;
    link = node.place.before(parent->place) ? &parent->left_ : &parent->right_;
  }
  *link = &node;
  while (node.parent_ != nullptr && node.parent_->heat_ < node.heat_) {
    rotate_up(node);
  }
}

void OrderTree::erase(Node& node) noexcept {
  while (node.left_ != nullptr || node.right_ != nullptr) {
    const bool left =
        node.right_ == nullptr || (node.left_ != nullptr && node.left_->heat_ > node.right_->heat_);
    rotate_up(left ? *node.left_ : *node.right_);
  }
  link_to(node) = nullptr;
  for (Node* up = node.parent_; up != nullptr; up = up->parent_) {
    --up->count_;
  }
  node.parent_ = nullptr;
}

void OrderTree::rotate_up(Node& child) noexcept {
  Node& parent = *child.parent_;
  Node*& link = link_to(parent);
  const bool was_left = parent.left_ == &child;
  Node*& inner = was_left ? child.right_ : child.left_;
  (was_left ? parent.left_ : parent.right_) = inner;
  if (inner != nullptr) {
    inner->parent_ = &parent;
  }
  inner = &parent;
  child.parent_ = parent.parent_;
  parent.parent_ = &child;
  link = &child;
  child.count_ = parent.count_;
  parent.count_ = 1 + count_of(parent.left_) + count_of(parent.right_);
}

OrderTree::Node* OrderTree::first() const noexcept {
  Node* node = root_;
  while (node != nullptr && node->left_ != nullptr) {
    node = node->left_;
  }
  return node;
}

uint32_t OrderTree::before(const Place& place) const noexcept {
  uint32_t rank = 0;
  for (const Node* node = root_; node != nullptr;) {
    if (node->place.before(place)) {
      rank += count_of(node->left_) + 1;
      node = node->right_;
    } else {
      node = node->left_;
    }
  }
  return rank;
}

}  // namespace penstock::queue
