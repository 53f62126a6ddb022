#include "worker/queue/store/held_writes.h"

#include <iterator>

#include "worker/queue/text/log.h"

namespace penstock::queue {

bool HeldWrites::holds_up(const Operation& op) const {
  const auto held = op.job ? held_.find(sequence_of(*op.job)) : held_.end();
  return held != held_.end() && !held->second.ops.empty();
}

void HeldWrites::note_failure(const JobId& id, const Error& error) {
  Held& held = held_[sequence_of(id)];
  held.tries += error.kind == ErrorKind::kBusy ? 0 : 1;
  held.why = error.message;
  if (held.tries == 1) {
    log(Level::kWarn, "the result of job " + std::string(id.view()) +
                          " cannot be stored, and is tried again: " + error.message);
  }
}

std::vector<Operation> HeldWrites::take_all() {
  std::vector<Operation> all;
  for (auto& [sequence, held] : held_) {
    std::move(held.ops.begin(), held.ops.end(), std::back_inserter(all));
    held.ops.clear();
  }
  return all;
}

void HeldWrites::give_up_some(const OnGivenUp& on_given_up) {
  for (auto each = held_.begin(); each != held_.end();) {
    Held& held = each->second;
    if (!held.ops.empty() && held.tries < most_tries_) {
      ++each;
      continue;
    }
    if (!held.ops.empty()) {
      const JobId id = *held.ops.front().job;
      on_given_up(id, std::move(held.ops), std::move(held.why));
    }
    each = held_.erase(each);
  }
}

}  // namespace penstock::queue
