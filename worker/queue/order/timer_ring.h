// TimerRing: which of many members is due first, when they come in order of their time, as the
// deadlines of one queue's jobs do.
//
// A member costs one pointer, and is added and erased in O(1) without a look at any other; a heap
// would have to look at many. A member that leaves from the middle leaves a hole. The hole is gone
// when it comes first, or when there are more holes than members. The ring owns nothing.
//
// A Member is a TimerHeap::Node and has `int64_t due_ns() const`, which must not change while it is
// in. It is in at most one heap or ring at a time, and says itself in which kind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>

#include "worker/queue/order/timer_heap.h"

namespace penstock::queue {

template <typename Member>
class TimerRing {
 public:
  // Whether the member is in a ring: false when in a heap, or nowhere.
  static bool has(const Member& member) noexcept {
    return node(member).index_ >= kRing && node(member).is_set();
  }
  // Whether a member of that time may be added.
  bool takes(int64_t due_ns) const noexcept { return members_ == 0 || due_ns >= last_ns_; }

  // REQUIRES: the ring takes its time; it is nowhere.
  void push(Member& member) {
    if (places_.size() >= 2 * members_ + kFewHoles) {
      drop_holes();
    }
    index(member) = at(places_.size());
    places_.push_back(&member);
    last_ns_ = member.due_ns();
    ++members_;
  }

  // REQUIRES: the member is in this ring.
  void erase(Member& member) noexcept {
    const uint32_t place = (std::exchange(index(member), TimerHeap::Node::kOut) - first_) & kMask;
    places_[place] = nullptr;
    --members_;
    while (!places_.empty() && places_.front() == nullptr) {
      places_.pop_front();
      ++first_;
    }
  }

  Member* first() const noexcept { return places_.empty() ? nullptr : places_.front(); }
  int64_t next_ns() const noexcept { return places_.empty() ? INT64_MAX : first()->due_ns(); }
  // In order of time; nullptr when it holds for none.
  template <typename Predicate>
  const Member* find_first(Predicate&& holds) const {
    for (const Member* const member : places_) {
      if (member != nullptr && holds(*member)) {
        return member;
      }
    }
    return nullptr;
  }
  size_t size() const noexcept { return members_; }

 private:
  // Places are numbered as they come, modulo 2^30: a queue is shorter by far.
  static constexpr uint32_t kRing = 1U << 31;
  static constexpr uint32_t kMask = (1U << 30) - 1;
  static constexpr size_t kFewHoles = 256;

  static const TimerHeap::Node& node(const Member& member) noexcept { return member; }
  static uint32_t& index(Member& member) noexcept {
    return static_cast<TimerHeap::Node&>(member).index_;
  }
  uint32_t at(size_t place) const noexcept {
    return kRing | ((first_ + static_cast<uint32_t>(place)) & kMask);
  }

  void drop_holes() noexcept {
    size_t kept = 0;
    for (Member* const member : places_) {
      if (member != nullptr) {
        index(*member) = at(kept);
        places_[kept++] = member;
      }
    }
    places_.resize(kept);
  }

  std::deque<Member*> places_;
  uint32_t first_ = 0;  // the number of the first of them
  size_t members_ = 0;
  int64_t last_ns_ = INT64_MIN;
};

}  // namespace penstock::queue
