#include "worker/queue/shared_jobs/receipt_journal.h"

#include <fmt/format.h>

#include <utility>

namespace penstock::queue {
namespace {

std::string key_of(uint64_t number) {
  return fmt::format("{}{:016x}", ReceiptJournal::kReceiptOf, number);
}

}  // namespace

void ReceiptJournal::note(const JobId& id, std::string kept) {
  const uint64_t number = sequence_of(id);
  numbers_.insert(number);
  if (numbers_.size() > kMost) {
    forget(*numbers_.begin());
  }
  if (store_ != nullptr && store_->pending() < Store::kMostPending) {
    store_->note_away(key_of(number), std::move(kept), [](bool) {});
  }
}

bool ReceiptJournal::forget(uint64_t number) {
  if (numbers_.erase(number) == 0) {
    return false;
  }
  if (store_ != nullptr) {
    store_->forget_away(key_of(number));
  }
  return true;
}

}  // namespace penstock::queue
