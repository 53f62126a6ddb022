// StateAccount: what the jobs on disk take of it, in all and for each share.
//
// Jobs that were there at the start are counted in order of arrival, while others are served. What
// comes or goes later is counted at once. What a transaction charges is taken back if it is undone.
//
// For the store's thread alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "worker/queue/store/job_tables.h"

namespace penstock::queue {

class StateAccount {
 public:
  // `last_sequence`: of the jobs that were there at the start.
  explicit StateAccount(uint64_t last_sequence) : last_sequence_(last_sequence) {}

  // `bytes` may be negative. Nothing happens if the job was there at the start, and its turn to be
  // counted is yet to come.
  void charge(const JobTables::Charge& charge) {
    if (charge.seq <= counted_up_to_ || charge.seq > last_sequence_) {
      charges_.push_back(charge);
      add(charge, 1);
    }
  }
  // The next job of those that were there at the start.
  void count(const JobTables::Charge& charge) {
    if (charge.seq <= last_sequence_) {
      counted_up_to_ = charge.seq;
      this->charge(charge);
    }
  }
  void count_no_more() { counted_up_to_ = last_sequence_; }
  uint64_t counted_up_to() const { return counted_up_to_; }
  uint64_t last_sequence() const { return last_sequence_; }

  // A place to come back to, within a transaction.
  struct Mark {
    size_t charges = 0;
    uint64_t counted_up_to = 0;
  };
  Mark mark() const { return {charges_.size(), counted_up_to_}; }
  void undo(const Mark& mark) {
    for (; charges_.size() > mark.charges; charges_.pop_back()) {
      add(charges_.back(), -1);
    }
    counted_up_to_ = mark.counted_up_to;
  }
  // The transaction was committed; another begins.
  void settle() {
    charges_.clear();
    settled_ = counted_up_to_;
  }
  void roll_back() { undo({0, settled_}); }

  int64_t of_share(uint64_t share) const {
    const auto found = shares_.find(share);
    return found == shares_.end() ? 0 : found->second;
  }
  // What whole results take in files.
  uint64_t file_bytes() const { return static_cast<uint64_t>(std::max<int64_t>(file_bytes_, 0)); }

 private:
  void add(const JobTables::Charge& charge, int64_t times) {
    file_bytes_ += times * charge.file_bytes;
    if ((shares_[charge.whose] += times * charge.bytes) == 0) {
      shares_.erase(charge.whose);
    }
  }

  const uint64_t last_sequence_;
  std::unordered_map<uint64_t, int64_t> shares_;
  int64_t file_bytes_ = 0;
  uint64_t counted_up_to_ = 0;              // of those that were there at the start
  uint64_t settled_ = 0;                    // likewise, at the last commit
  std::vector<JobTables::Charge> charges_;  // of the transaction
};

}  // namespace penstock::queue
