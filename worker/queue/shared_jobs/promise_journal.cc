#include "worker/queue/shared_jobs/promise_journal.h"

#include <algorithm>
#include <utility>

#include "worker/queue/text/log.h"

namespace penstock::queue {

using State = SharedOrder::Known::State;

PromiseJournal::PromiseJournal(std::string queue, SharedOrder& order, Store& store, int64_t keep_ms)
    : queue_(std::move(queue)), order_(order), store_(store), keep_ns_(keep_ms * kNsPerMs) {}

void PromiseJournal::set(int64_t keep_ms) {
  keep_ns_ = keep_ms * kNsPerMs;
  for (auto& [id, entry] : entries_) {
    entry.keep_ns = std::min(entry.keep_ns, keep_ns_);
  }
}

void PromiseJournal::note(const Newcomer& newcomer, std::function<void(bool)> written) {
  entries_[newcomer.id] = {.promised = false,
                           .announcing = false,
                           .seen_ns = monotonic_ns(),
                           .keep_ns = keep_ns_,
                           .deadline_us = newcomer.job.deadline_us};
  store_.note_away(newcomer.id, encode(newcomer, queue_), std::move(written));
}

void PromiseJournal::promised(const std::string& id) {
  if (const auto found = entries_.find(id); found != entries_.end()) {
    found->second.promised = true;
  }
}

void PromiseJournal::forget(const std::string& id) {
  if (entries_.erase(id) > 0) {
    store_.forget_away(id);
  }
}

void PromiseJournal::restore(const Newcomer& newcomer, int64_t now_ms) {
  const int64_t age_ms = std::max<int64_t>(now_ms - newcomer.job.came_us / 1000, 0);
  entries_[newcomer.id] = {.promised = true,
                           .announcing = false,
                           .seen_ns = monotonic_ns() - age_ms * kNsPerMs,
                           .keep_ns = keep_ns_,
                           .deadline_us = newcomer.job.deadline_us};
  hurries_ = true;
}

void PromiseJournal::keep_secret(const std::string& secret) {
  if (secret != secret_) {
    secret_ = secret;
    store_.note_away(std::string(kSecretOf) + queue_, secret, [](bool) {});
  }
}

void PromiseJournal::doubt() {
  round_.clear();
  hurries_ = true;
  next_ns_ = 0;
}

// ---- whether Redis has them

void PromiseJournal::advance_to(int64_t now_ns) {
  if (now_ns < next_ns_ || entries_.empty()) {
    return;
  }
  next_ns_ = now_ns + kEveryNs;
  announce_some();
  if (round_.empty()) {
    for (const auto& [id, entry] : entries_) {
      round_.push_back(id);
    }
  }
  ask_some();
}

void PromiseJournal::ask_some() {
  if (asking_ || round_.empty()) {
    return;
  }
  const size_t most =
      hurries_ ? kMostAsked : std::clamp(entries_.size() / kRoundSeconds, size_t{50}, kMostAsked);
  std::vector<std::string> ids;
  while (!round_.empty() && ids.size() < most) {
    const auto found = entries_.find(round_.front());
    if (found != entries_.end() && found->second.promised && !found->second.announcing) {
      ids.push_back(std::move(round_.front()));
    }
    round_.pop_front();
  }
  const std::vector<std::string_view> views(ids.begin(), ids.end());
  asking_ = !ids.empty() &&
            order_.states(views, [this, ids, alive = alive_](
                                     const SharedOrder::Answer<std::vector<int64_t>>& answer) {
              if (!*alive) {
                return;
              }
              asking_ = false;
              if (answer && answer.value.size() == ids.size()) {
                told(ids, answer.value);
              }
            });
}

void PromiseJournal::told(const std::vector<std::string>& ids, const std::vector<int64_t>& states) {
  const int64_t now_ns = monotonic_ns();
  const int64_t now_us = realtime_ns() / kNsPerUs;
  size_t given_up = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto found = entries_.find(ids[i]);
    if (found == entries_.end()) {
      continue;
    }
    Entry& entry = found->second;
    const auto state = static_cast<State>(states[i]);
    if (state == State::kOver) {
      forget(ids[i]);
    } else if (state != State::kUnknown) {
      entry.seen_ns = now_ns;
      entry.keep_ns = keep_ns_;
    } else if (now_ns - entry.seen_ns > entry.keep_ns ||
               (entry.deadline_us != 0 && now_us > entry.deadline_us)) {
      ++given_up;
      forget(ids[i]);
    } else {
      entry.announcing = true;
      lost_.push_back(ids[i]);
    }
  }
  if (given_up > 0) {
    log(Level::kWarn, "queue " + queue_ + ": " + std::to_string(given_up) +
                          " promised jobs that Redis does not know are not announced again: their "
                          "time is over, or they may have ended long ago");
  }
  announce_some();
  hurries_ = hurries_ && !round_.empty();
  if (hurries_) {
    ask_some();
  }
}

// ---- what it has lost

void PromiseJournal::announce_some() {
  while (!lost_.empty() && announcing_ < kMostAnnounced && order_.ready()) {
    const std::string id = std::move(lost_.front());
    lost_.pop_front();
    ++announcing_;
    store_.find_away(id, [this, id, alive = alive_](const std::optional<std::string>& job) {
      if (*alive) {
        announce(id, job);
      }
    });
  }
}

void PromiseJournal::announce(const std::string& id, const std::optional<std::string>& text) {
  const auto newcomer = std::make_shared<Newcomer>();
  std::string queue;
  const bool known = entries_.contains(id);
  if (!known || !text || !decode(*text, *newcomer, queue)) {
    --announcing_;
    if (known) {
      log(Level::kError,
          "queue " + queue_ + ": job " + id +
              " was promised, and Redis has lost it; what was kept of it here cannot "
              "be read");
    }
    return forget(id);
  }
  newcomer->job.force = true;
  const auto then = [this, id, newcomer,
                     alive = alive_](const SharedOrder::Answer<SharedOrder::Added>& answer) {
    if (*alive) {
      announced(id, answer);
    }
  };
  if (!order_.add(newcomer->as_job(), then)) {
    announced(id, {{}, SharedOrder::Trouble::kUnknown, {}});
  }
}

void PromiseJournal::announced(const std::string& id,
                               const SharedOrder::Answer<SharedOrder::Added>& answer) {
  using Admission = SharedOrder::Admission;
  --announcing_;
  const auto found = entries_.find(id);
  if (found == entries_.end()) {
    return;
  }
  found->second.announcing = false;  // it is asked for again, with the others
  if (!answer) {
    return;
  }
  if (answer.value.admission == Admission::kKeyUsed) {
    log(Level::kWarn, "queue " + queue_ + ": job " + id + " was lost by Redis; job " +
                          answer.value.job + " has its key, and stands for it");
    forget(id);
  } else if (answer.value.admission == Admission::kAdded) {
    found->second.seen_ns = monotonic_ns();
    if (announced_++ % 1000 == 0) {
      log(Level::kWarn,
          "queue " + queue_ + ": Redis had lost job " + id +
              ", which was promised: it is in line again, and so are others like it (" +
              std::to_string(announced_) + " until now)");
    }
  }
  announce_some();
}

}  // namespace penstock::queue
