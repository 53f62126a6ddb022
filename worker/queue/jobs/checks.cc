#include "worker/queue/jobs/checks.h"

#include <algorithm>
#include <utility>

#include "worker/queue/jobs/worker_session.h"

namespace penstock::queue {
namespace {

int64_t counted(size_t bytes) { return std::max(static_cast<int64_t>(bytes), Checks::kLeastBytes); }

}  // namespace

bool Checks::have_room(size_t bytes) const {
  return timeout_ns_ > 0 && counted(bytes) <= max_bytes_ - bytes_;
}

void Checks::ask(WorkerSession& worker, const SharedBytes& frame, OnChecked on_checked) {
  const int64_t bytes = counted(frame.size());
  bytes_ += bytes;
  asked_.emplace_hint(
      asked_.end(), ++last_number_,
      Asked{&worker, connections_.now_ns() + timeout_ns_, bytes, std::move(on_checked)});
  worker.show(frame, last_number_);
}

// Whoever is told may ask again.
void Checks::tell(Place asked, const wire::Checked* refusal) {
  const OnChecked on_checked = std::move(asked->second.on_checked);
  bytes_ -= asked->second.bytes;
  asked_.erase(asked);
  on_checked(refusal);
}

bool Checks::answered(uint64_t number, const wire::Checked& checked) {
  const auto found = asked_.find(number);
  if (found != asked_.end()) {
    tell(found, checked.status != 0 ? &checked : nullptr);
  }
  return number != 0 && number <= last_number_;  // else it came late
}

void Checks::lost(const WorkerSession& worker) {
  const auto its = [&](const auto& each) { return each.second.worker == &worker; };
  for (Place at = asked_.begin(); (at = std::find_if(at, asked_.end(), its)) != asked_.end();) {
    tell(at, nullptr);
    at = asked_.begin();
  }
}

void Checks::settle() {
  for (const uint64_t last = last_number_; !asked_.empty() && asked_.begin()->first <= last;) {
    tell(asked_.begin(), nullptr);
  }
}

void Checks::advance_to(int64_t now_ns) {
  while (next_event() <= now_ns) {
    tell(asked_.begin(), nullptr);
  }
}

}  // namespace penstock::queue
