// ReceiptJournal: what this host's edge has charged for shared jobs that were promised here, on its
// own disk until the edge has settled that. So the next penstockd of this host holds it while such
// a job lives, and has it settled, though the job ended on another host while there was none here.
//
//     note() ──▶ noted ──SETTLED, or its caller was told that nothing is promised──▶ gone
//
// Nobody waits for the disk: what is noted in the very moment of a crash may be lost, and lapses.
// So does what is noted while the store is behind, or without one: it is known in memory alone.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "worker/queue/store/store.h"

namespace penstock::queue {

class ReceiptJournal {
 public:
  static constexpr std::string_view kReceiptOf = "receipt ";  // before a job's number
  static constexpr size_t kMost = 100'000;  // as many as an edge holds; beyond, the oldest go

  // It lives longer; nullptr: there is no disk.
  explicit ReceiptJournal(Store* store) : store_(store) {}

  // `kept`: the job's record, and its receipt behind that (shared_record.h).
  void note(const JobId& id, std::string kept);
  // From an earlier life.
  void restore(const JobId& id) { numbers_.insert(sequence_of(id)); }
  // By sequence_of() the job's id. False: it was not noted.
  bool forget(uint64_t number);
  bool contains(uint64_t number) const { return numbers_.contains(number); }
  size_t size() const { return numbers_.size(); }

 private:
  Store* const store_;
  std::set<uint64_t> numbers_;  // the oldest job first
};

}  // namespace penstock::queue
