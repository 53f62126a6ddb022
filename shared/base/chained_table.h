// ChainedTable: a hash table whose chains go through the members themselves (Knuth, TAOCP vol. 3,
// 6.4): a member costs it a pointer and its share of an array that doubles.
//
// A Member has `Member* next_in_table` and `uint64_t hash() const`, of which the upper half decides
// after a multiplication: it must be such that nobody can choose it. It must not change while the
// member is in. The table owns nothing. All is O(1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace penstock {

template <typename Member>
class ChainedTable {
 public:
  ChainedTable() = default;
  ChainedTable(const ChainedTable&) = delete;
  ChainedTable& operator=(const ChainedTable&) = delete;

  size_t size() const noexcept { return size_; }

  // REQUIRES: nothing that it would be taken for is in.
  void insert(Member& member) {
    if (size_ == chains_.size()) {
      grow();
    }
    push(member);
    ++size_;
  }

  // The member of this hash for which `is` is true; nullptr if there is none.
  template <typename Is>
  Member* find(uint64_t hash, Is&& is) const noexcept {
    if (size_ == 0) {
      return nullptr;
    }
    Member* member = chains_[place(hash)];
    while (member != nullptr && !is(*member)) {
      member = member->next_in_table;
    }
    return member;
  }

  // REQUIRES: it is in.
  void erase(Member& member) noexcept {
    Member** link = &chains_[place(member.hash())];
    while (*link != &member) {
      link = &(*link)->next_in_table;
    }
    *link = member.next_in_table;
    if (--size_ == 0 && chains_.size() > kFewest) {
      chains_ = {};  // gives memory back
    }
  }

  // Visits every member. `visit` may erase or destroy the one it is at, and no other.
  template <typename Visit>
  void each(Visit&& visit) const {
    // When the last is erased the array may go, but then nothing is left to look at.
    for (size_t left = size_, at = 0; left > 0; ++at) {
      for (Member* member = chains_[at]; member != nullptr; --left) {
        visit(*std::exchange(member, member->next_in_table));
      }
    }
  }

 private:
  static constexpr size_t kFewest = 16;

  // Fibonacci hashing.
  size_t place(uint64_t hash) const noexcept {
    return (hash * 0x9e3779b97f4a7c15 >> 32) & (chains_.size() - 1);
  }
  void push(Member& member) noexcept {
    Member*& chain = chains_[place(member.hash())];
    member.next_in_table = std::exchange(chain, &member);
  }
  void grow() {
    std::vector<Member*> few(chains_.empty() ? kFewest : 2 * chains_.size());
    few.swap(chains_);
    for (Member* member : few) {
      while (member != nullptr) {
        push(*std::exchange(member, member->next_in_table));
      }
    }
  }

  std::vector<Member*> chains_;  // as many as a power of two, and at least one a member
  size_t size_ = 0;
};

}  // namespace penstock
