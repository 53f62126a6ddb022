// UsageLedger: what was used by jobs whose end no transaction of their own writes: those whose
// promise is their caller's connection, and those of queues that hosts share.
//
// It is gathered in memory and in the usage file, and written to the ledger some at a time. Nobody
// waits for that. What was counted is not lost, nor counted twice, whenever the process is killed
// (store/usage_file.h).
#pragma once

#include <cstdint>
#include <map>

#include "worker/queue/store/store.h"
#include "worker/queue/store/usage_file.h"

namespace penstock::queue {

class UsageLedger {
 public:
  static constexpr int64_t kWriteNs = 1'000'000'000;  // so much is gathered
  // Of different owners, queues and models between two writes. Beyond, they are nobody's.
  static constexpr size_t kMostRows = 20'000;

  // Both before all else. `left`: what an earlier process had not written.
  void use(Store& store, UsageFile file, std::vector<UsageRow> left);
  bool is_kept() const { return store_ != nullptr; }

  void add(UsageKey key, const UsageCounts& counts);
  void advance_to(int64_t now_ns);
  int64_t next_event() const { return writing_ ? INT64_MAX : due_ns_; }
  // Ends that are counted, and not in the ledger yet.
  size_t waiting() const { return file_.held(); }
  // What was counted before that hour is in the ledger.
  int64_t written_before(int64_t hour) const;

 private:
  void gather(UsageKey key, const UsageCounts& counts);

  Store* store_ = nullptr;
  UsageFile file_;
  std::map<UsageKey, UsageCounts> rows_;
  int64_t writes_from_ = INT64_MAX;  // the first hour that is being written
  bool writing_ = false;
  bool folded_ = false;  // which was said in the log
  int64_t now_ns_ = 0;
  int64_t due_ns_ = INT64_MAX;
};

}  // namespace penstock::queue
