#include "worker/queue/jobs/usage_ledger.h"

#include <algorithm>
#include <utility>

#include "worker/queue/text/log.h"

namespace penstock::queue {

void UsageLedger::use(Store& store, UsageFile file, std::vector<UsageRow> left) {
  store_ = &store;
  file_ = std::move(file);
  for (UsageRow& row : left) {
    gather(std::move(row.key), row.counts);
  }
}

void UsageLedger::add(UsageKey key, const UsageCounts& counts) {
  if (store_ == nullptr || counts == UsageCounts()) {  // NOLINT(*-size-empty): all are 0
    return;
  }
  UsageRow row{std::move(key), counts};
  file_.add(row);  // where there is no room it is in memory alone, until it is written
  gather(std::move(row.key), counts);
  if (file_.held() > UsageFile::kEntries / 2) {
    due_ns_ = now_ns_;
  }
}

void UsageLedger::gather(UsageKey key, const UsageCounts& counts) {
  if (rows_.size() >= kMostRows && !rows_.contains(key)) {
    key.owner = 0;
    key.queue.clear();
    key.model.clear();
    if (!std::exchange(folded_, true)) {
      log(Level::kError,
          "the ledger cannot tell all owners apart: more came at once than it holds until they are "
          "on disk");
    }
  }
  rows_[std::move(key)] += counts;
  due_ns_ = std::min(due_ns_, now_ns_ + kWriteNs);
}

int64_t UsageLedger::written_before(int64_t hour) const {
  return std::min({hour, writes_from_, rows_.empty() ? hour : rows_.begin()->first.hour});
}

void UsageLedger::advance_to(int64_t now_ns) {
  now_ns_ = now_ns;
  if (writing_ || rows_.empty() || now_ns < due_ns_) {
    return;
  }
  writing_ = true;
  due_ns_ = INT64_MAX;
  writes_from_ = rows_.begin()->first.hour;
  std::vector<UsageRow> rows;
  rows.reserve(rows_.size());
  for (const auto& [key, counts] : std::exchange(rows_, {})) {
    rows.push_back({key, counts});
  }
  const uint64_t mark = file_.next();
  store_->add_usage(std::move(rows), mark, [this, mark] {
    file_.forget(mark);
    writes_from_ = INT64_MAX;
    writing_ = false;
  });
}

}  // namespace penstock::queue
