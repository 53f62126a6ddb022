#include "worker/queue/bound/pace.h"

#include <algorithm>
#include <atomic>
#include <utility>

namespace penstock::queue {
namespace {

using Entry = PaceRecord::Entry;

limit::WindowPolicy policy_of(const PaceLimit& limit) {
  return {.kind = limit::WindowKind::fixed, .span = *limit.calendar, .limit = limit.amount};
}

Entry& entry_at(PaceRecord& record, uint64_t index) {
  return record.entries[index % PaceRecord::kEntries];
}
const Entry& entry_at(const PaceRecord& record, uint64_t index) {
  return record.entries[index % PaceRecord::kEntries];
}

// A rolling window: what is in it, and when it has room.
class Rolling {
 public:
  Rolling(const PaceLimit& limit, const PaceRecord& record, int64_t now_ns)
      : limit_(limit),
        record_(record),
        now_ns_(now_ns),
        counts_ns_(limit.length_ns + Pace::late_ns(limit.length_ns)),
        first_(std::max(record.first, record.end - std::min(record.end, kMost))) {
    while (first_ < record.end && is_over(entry_at(record, first_))) {
      ++first_;
    }
    for (uint64_t i = first_; i < record.end; ++i) {
      used_ += entry_at(record, i).amount;
    }
  }

  uint64_t first() const { return first_; }
  uint64_t used() const { return used_; }
  // When so many more could have started, one behind the other. What starts meanwhile is over a
  // window's length later; then it goes round again.
  int64_t starts_ns(uint64_t amount) const {
    const uint64_t rounds = amount == 0 ? 0 : (amount - 1) / limit_.amount;
    const uint64_t rest = amount - rounds * limit_.amount;
    return free_ns(rest) + static_cast<int64_t>(rounds) * counts_ns_;
  }

 private:
  static constexpr uint64_t kMost = PaceRecord::kEntries;
  bool is_over(const Entry& entry) const { return entry.until_ns + counts_ns_ <= now_ns_; }
  // When there is room for so many, at most the limit's amount.
  int64_t free_ns(uint64_t amount) const {
    uint64_t used = used_;
    int64_t at_ns = now_ns_;
    for (uint64_t i = first_; i < record_.end && used + amount > limit_.amount; ++i) {
      used -= entry_at(record_, i).amount;
      at_ns = std::max(now_ns_, entry_at(record_, i).until_ns + counts_ns_);
    }
    return at_ns;
  }

  const PaceLimit& limit_;
  const PaceRecord& record_;
  const int64_t now_ns_;
  const int64_t counts_ns_;
  uint64_t first_;
  uint64_t used_ = 0;
};

int64_t calendar_starts_ns(const PaceLimit& limit, uint64_t state, const limit::Instant& now,
                           uint64_t amount) {
  const limit::WindowPolicy policy = policy_of(limit);
  const uint64_t used = std::min(limit::used(policy, state, now), limit.amount);
  if (used + amount <= limit.amount) {
    return now.steady_ns;
  }
  // Of a window that is full, the wait for one unit is until the next begins.
  const limit::Decision full =
      limit::decide(policy, limit::overdraw(policy, state, limit.amount - used, now), now, 1);
  const uint64_t rounds = (used + amount - 1) / limit.amount - 1;
  return now.steady_ns + full.retry_after_ns +
         static_cast<int64_t>(rounds) * limit::span_ns(*limit.calendar);
}

}  // namespace

void Pace::set(std::vector<PaceLimit> limits, uint32_t at_once, std::vector<PaceRecord*> records) {
  limits_ = std::move(limits);
  at_once_ = at_once;
  records_ = std::move(records);
}

uint64_t Pace::used(size_t limit, int64_t now_ns) const {
  const PaceLimit& of = limits_[limit];
  return of.calendar ? limit::used(policy_of(of), records_[limit]->window, instant(now_ns))
                     : Rolling(of, *records_[limit], now_ns).used();
}

int64_t Pace::starts_ns(uint64_t jobs, uint64_t tokens, int64_t now_ns) const {
  int64_t at_ns = now_ns;
  for (size_t i = 0; i < limits_.size(); ++i) {
    const PaceLimit& limit = limits_[i];
    const uint64_t amount = limit.unit == Unit::kRequests ? jobs : tokens;
    at_ns = std::max(at_ns,
                     limit.calendar
                         ? calendar_starts_ns(limit, records_[i]->window, instant(now_ns), amount)
                         : Rolling(limit, *records_[i], now_ns).starts_ns(amount));
  }
  return at_ns;
}

int64_t Pace::opens_ns(uint64_t tokens, int64_t now_ns) const {
  if (at_once_ > 0 && running_ >= at_once_) {
    return INT64_MAX;
  }
  for (const PaceLimit& limit : limits_) {
    tokens = limit.unit == Unit::kTokens ? std::min(tokens, limit.amount) : tokens;
  }
  return starts_ns(1, tokens, now_ns);
}

Pace::Start Pace::start(uint64_t tokens, int64_t now_ns) {
  Start start{.at_ns = now_ns, .tokens = tokens};
  for (size_t i = 0; i < limits_.size(); ++i) {
    count(i, limits_[i].unit == Unit::kRequests ? 1 : tokens, now_ns);
    start.windows[i] = records_[i]->window;
  }
  ++running_;
  return start;
}

void Pace::count(size_t limit, uint64_t amount, int64_t now_ns) {
  const PaceLimit& of = limits_[limit];
  PaceRecord& record = *records_[limit];
  if (of.calendar) {
    record.window = limit::overdraw(policy_of(of), record.window, amount, instant(now_ns));
    return;
  }
  record.first = Rolling(of, record, now_ns).first();
  const int64_t close_ns = of.length_ns / static_cast<int64_t>(PaceRecord::kEntries - 1);
  Entry& last = entry_at(record, record.end - 1);
  const bool full = record.end - record.first == PaceRecord::kEntries;
  if (record.end > record.first && (full || now_ns - last.since_ns < close_ns)) {
    last.amount += amount;
    last.until_ns = now_ns;
    return;
  }
  entry_at(record, record.end) = {now_ns, now_ns, amount};
  std::atomic_signal_fence(std::memory_order_release);  // before it is one of them
  ++record.end;
}

void Pace::give_back(size_t limit, const Start& start, uint64_t amount) {
  PaceRecord& record = *records_[limit];
  if (limits_[limit].calendar) {
    record.window =
        limit::refund(policy_of(limits_[limit]), record.window, start.windows[limit], amount);
    return;
  }
  for (uint64_t at = record.first; at < record.end; ++at) {
    Entry& entry = entry_at(record, at);
    if (entry.since_ns <= start.at_ns && start.at_ns <= entry.until_ns) {
      entry.amount -= std::min(entry.amount, amount);
      return;
    }
  }
}

// What was counted for a job was more, or less.
void Pace::correct(const Start& start, bool request, uint64_t tokens, int64_t now_ns) {
  for (size_t i = 0; i < limits_.size(); ++i) {
    const bool by_tokens = limits_[i].unit == Unit::kTokens;
    const uint64_t before = by_tokens ? start.tokens : 1;
    const uint64_t after = by_tokens ? tokens : uint64_t{request};
    if (after > before) {
      count(i, after - before, now_ns);
    } else if (after < before) {
      give_back(i, start, before - after);
    }
  }
}

void Pace::end(const Start& start, uint64_t tokens, int64_t now_ns) {
  --running_;
  correct(start, true, tokens, now_ns);
}

void Pace::take_back(const Start& start, int64_t now_ns) {
  --running_;
  correct(start, false, 0, now_ns);
}

}  // namespace penstock::queue
