// TimerHeap: which of many members is due first.
//
// A binary heap whose members know their index, so that one can leave from the middle in O(log n).
// Members that come in order of their time, as deadlines do, are added in O(1). It owns nothing.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace penstock::queue {

class TimerHeap {
 public:
  struct Node {
    int64_t due_ns() const noexcept { return due_ns_; }

   private:
    friend class TimerHeap;
    static constexpr uint32_t kOut = UINT32_MAX;
    int64_t due_ns_ = 0;
    uint32_t index_ = kOut;
  };

  // Adds the node, or moves it to another time.
  void set(Node& node, int64_t due_ns) {
    if (node.index_ == Node::kOut) {
      node.index_ = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back(&node);
    }
    node.due_ns_ = due_ns;
    settle(node.index_);
  }

  // Does nothing when the node is not in.
  void erase(Node& node) noexcept {
    const uint32_t hole = std::exchange(node.index_, Node::kOut);
    if (hole == Node::kOut) {
      return;
    }
    Node* const last = nodes_.back();
    nodes_.pop_back();
    if (last != &node) {
      put(*last, hole);
      settle(hole);
    }
  }

  Node* first() const noexcept { return nodes_.empty() ? nullptr : nodes_.front(); }

 private:
  void put(Node& node, uint32_t index) noexcept {
    nodes_[index] = &node;
    node.index_ = index;
  }

  void settle(uint32_t index) noexcept {
    Node& node = *nodes_[index];
    while (index > 0 && node.due_ns_ < nodes_[(index - 1) / 2]->due_ns_) {
      put(*nodes_[(index - 1) / 2], index);
      index = (index - 1) / 2;
    }
    for (;;) {
      uint32_t child = 2 * index + 1;
      if (child + 1 < nodes_.size() && nodes_[child + 1]->due_ns_ < nodes_[child]->due_ns_) {
        ++child;
      }
      if (child >= nodes_.size() || nodes_[child]->due_ns_ >= node.due_ns_) {
        break;
      }
      put(*nodes_[child], index);
      index = child;
    }
    put(node, index);
  }

  std::vector<Node*> nodes_;
};

}  // namespace penstock::queue
