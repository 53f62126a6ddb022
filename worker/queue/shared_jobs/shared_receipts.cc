#include "worker/queue/shared_jobs/shared_receipts.h"

#include <algorithm>
#include <iterator>

#include "shared/wire/receipt.h"
#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {

void SharedReceipts::note(std::string id, std::string receipt) {
  if (noted_.size() == kMostWaiting) {
    noted_.pop_front();
  }
  noted_.push_back({std::move(id), std::move(receipt)});
}

void SharedReceipts::settle(std::string id, std::function<void(Whose)> told) {
  std::erase_if(noted_, [&](const Receipts::Charged& each) { return each.id == id; });
  if (noting_) {
    too_late_.insert(id);
  }
  if (settling_.size() == kMostWaiting) {
    settling_.pop_front();  // it is known again after the next start
  }
  settling_.push_back({std::move(id), std::move(told)});
}

void SharedReceipts::flush(const std::string& home, int64_t now_ns) {
  if (now_ns < retry_ns_) {
    return;
  }
  while (!noted_.empty() && !home.empty() && !noting_ && now_ns >= retry_ns_) {
    send_noted(home);
  }
  if (!settling_.empty() && !asking_ && user_ != nullptr && user_->settles()) {
    send_settling();
  }
  if (now_ns >= look_ns_ && !looking_) {
    look_ns_ = now_ns + kLookNs;
    if (!home.empty() && user_ != nullptr && user_->settles_others()) {
      look();
    }
  }
}

int64_t SharedReceipts::next_event() const {
  const bool waits = (!noted_.empty() && !noting_) ||
                     (!settling_.empty() && !asking_ && user_ != nullptr && user_->settles());
  const int64_t next_ns =
      std::min(looking_ ? INT64_MAX : look_ns_, waits ? monotonic_ns() + kRetryNs : INT64_MAX);
  return std::max(next_ns, retry_ns_);
}

void SharedReceipts::send_noted(const std::string& home) {
  auto some = std::make_shared<std::vector<Receipts::Charged>>();
  size_t bytes = 0;
  while (!noted_.empty() && some->size() < kMostSaid && bytes < kMostBytes) {
    bytes += noted_.front().receipt.size();
    some->push_back(std::move(noted_.front()));
    noted_.pop_front();
  }
  const auto answered = [this, some, alive = alive_](const SharedOrder::Answer<bool>& answer) {
    if (!*alive) {
      return;
    }
    noting_ = false;
    if (answer.trouble == SharedOrder::Trouble::kRefused) {
      log(Level::kError, "what was charged for promised jobs cannot be kept for other hosts: " +
                             std::string(answer.why));
    }
    if (answer.trouble == SharedOrder::Trouble::kUnknown) {
      std::erase_if(*some,
                    [this](const Receipts::Charged& each) { return too_late_.contains(each.id); });
      noted_.insert(noted_.begin(), std::make_move_iterator(some->begin()),
                    std::make_move_iterator(some->end()));
      retry_ns_ = monotonic_ns() + kRetryNs;
    }
    too_late_.clear();
  };
  noting_ = true;
  if (!receipts_.charge(home, *some, answered)) {
    answered({{}, SharedOrder::Trouble::kUnknown, {}});
  }
}

void SharedReceipts::send_settling() {
  auto some = std::make_shared<std::vector<Settling>>();
  std::vector<std::string_view> ids;
  while (!settling_.empty() && some->size() < kMostSaid) {
    some->push_back(std::move(settling_.front()));
    settling_.pop_front();
  }
  for (const Settling& each : *some) {
    ids.push_back(each.id);
  }
  const auto answered = [this, some,
                         alive = alive_](const SharedOrder::Answer<std::vector<Whose>>& answer) {
    if (!*alive) {
      return;
    }
    asking_ = false;
    if (answer && answer.value.size() == some->size()) {
      for (size_t i = 0; i < some->size(); ++i) {
        (*some)[i].told(answer.value[i]);
      }
      return;
    }
    settling_.insert(settling_.begin(), std::make_move_iterator(some->begin()),
                     std::make_move_iterator(some->end()));
    retry_ns_ = monotonic_ns() + kRetryNs;
  };
  asking_ = true;
  if (!receipts_.settle(ids, answered)) {
    answered({{}, SharedOrder::Trouble::kUnknown, {}});
  }
}

void SharedReceipts::look() {
  const auto answered = [this, alive = alive_](const SharedOrder::Answer<Receipts::Page>& answer) {
    if (!*alive) {
      return;
    }
    looking_ = false;
    if (!answer) {
      return;
    }
    look_ns_ = answer.value.more ? monotonic_ns() + kRetryNs : look_ns_;
    for (const Receipts::Inherited& each : answer.value.all) {
      user_->on_inherited(each);
    }
  };
  looking_ = receipts_.inherit(kMostTaken, kMostRecordBytes, wire::kMaxReceiptBytes, answered);
}

}  // namespace penstock::queue
