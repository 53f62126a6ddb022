// TimerHeap: which of many members is due first.
//
// A heap of four children a parent, with the times beside each other in one array, whose members
// know their index, so that one can leave from the middle in O(log n). It owns nothing. For many
// members that come in order of their time there is the TimerRing.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace penstock::queue {

class TimerHeap {
 public:
  class Node {
   public:
    bool is_set() const noexcept { return index_ != kOut; }

   private:
    friend class TimerHeap;
    template <typename>
    friend class TimerRing;
    static constexpr uint32_t kOut = UINT32_MAX;
    uint32_t index_ = kOut;
  };

  // Adds the node, or moves it to another time.
  void set(Node& node, int64_t due_ns) {
    if (node.index_ == Node::kOut) {
      node.index_ = static_cast<uint32_t>(entries_.size());
      entries_.push_back({});
    }
    settle({due_ns, &node}, node.index_);
  }

  // Does nothing when the node is not in.
  void erase(Node& node) noexcept {
    const uint32_t hole = std::exchange(node.index_, Node::kOut);
    if (hole == Node::kOut) {
      return;
    }
    const Entry last = entries_.back();
    entries_.pop_back();
    if (last.node != &node) {
      settle(last, hole);
    }
  }

  Node* first() const noexcept { return entries_.empty() ? nullptr : entries_.front().node; }
  // The node that leaves at the least cost. REQUIRES: not empty.
  Node* last() const noexcept { return entries_.back().node; }
  int64_t next_ns() const noexcept {
    return entries_.empty() ? INT64_MAX : entries_.front().due_ns;
  }
  size_t size() const noexcept { return entries_.size(); }
  // REQUIRES: the node is in.
  int64_t due_ns(const Node& node) const noexcept { return entries_[node.index_].due_ns; }

 private:
  static constexpr uint32_t kChildren = 4;
  struct Entry {
    int64_t due_ns;
    Node* node;
  };

  void put(const Entry& entry, uint32_t index) noexcept {
    entries_[index] = entry;
    entry.node->index_ = index;
  }

  // Puts the entry where it belongs, from the hole at `index` up or down.
  void settle(const Entry& entry, uint32_t index) noexcept {
    while (index > 0 && entry.due_ns < entries_[(index - 1) / kChildren].due_ns) {
      put(entries_[(index - 1) / kChildren], index);
      index = (index - 1) / kChildren;
    }
    for (;;) {
      const size_t begin = size_t{index} * kChildren + 1;
      const size_t end = std::min(begin + kChildren, entries_.size());
      size_t least = begin;
      for (size_t child = begin + 1; child < end; ++child) {
        least = entries_[child].due_ns < entries_[least].due_ns ? child : least;
      }
      if (begin >= end || entries_[least].due_ns >= entry.due_ns) {
        break;
      }
      put(entries_[least], index);
      index = static_cast<uint32_t>(least);
    }
    put(entry, index);
  }

  std::vector<Entry> entries_;
};

}  // namespace penstock::queue
