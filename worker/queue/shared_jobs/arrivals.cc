#include "worker/queue/shared_jobs/arrivals.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "worker/queue/text/log.h"

namespace penstock::queue {

Arrivals::Arrivals(SharedOrder& order, const Scheduler::QueueSettings& settings, int64_t keep_ms,
                   const Promising& promising, Calls calls)
    : queue_(settings.name), order_(order), calls_(std::move(calls)) {
  if (promising.servers != nullptr) {
    line_ =
        std::make_unique<PromiseLine>(*promising.servers, settings, keep_ms, promising.replicas);
    journal_ = std::make_unique<PromiseJournal>(queue_, order, *promising.store,
                                                std::min(keep_ms, promising.keep_dead_ms));
  }
}

// An end that was a dead letter's may be forgotten before others are.
void Arrivals::set(const Scheduler::QueueSettings& settings, int64_t keep_ms,
                   int64_t keep_dead_ms) {
  if (line_ != nullptr) {
    line_->set(settings, keep_ms);
    journal_->set(std::min(keep_ms, keep_dead_ms));
  }
}

void Arrivals::add(Newcomer newcomer, Told told) {
  const std::string id = newcomer.id;
  const auto [at, fresh] = arrivals_.try_emplace(id);
  Arrival& arrival = at->second;
  if (!fresh) {  // it is on its way already: what comes of that is told to both
    arrival.told = [first = std::move(arrival.told), second = std::move(told)](
                       Outcome outcome, const SharedOrder::Added& added) {
      first(outcome, added);
      second(outcome, added);
    };
    return;
  }
  arrival.newcomer = std::move(newcomer);
  arrival.told = std::move(told);
  arrival.until_ns = monotonic_ns() + kPatienceNs;
  arrival.number = ++numbers_;
  if (journal_ != nullptr && arrival.newcomer.promised) {
    arrival.writing = true;
    journal_->note(arrival.newcomer,
                   [this, id, number = arrival.number, alive = alive_](bool written) {
                     if (Arrival* const its = *alive ? find(id, number) : nullptr; its != nullptr) {
                       its->writing = false;
                       its->written = written;
                       settle(*its);
                     }
                   });
  }
  ask(arrival);
}

void Arrivals::advance_to(int64_t now_ns) {
  if (journal_ != nullptr) {
    journal_->advance_to(now_ns);
  }
  std::vector<Arrival*> over;
  for (auto& [id, arrival] : arrivals_) {
    if (arrival.asking || arrival.outcome) {
      continue;
    }
    now_ns < arrival.until_ns ? ask(arrival) : over.push_back(&arrival);
  }
  for (Arrival* const arrival : over) {
    arrival->outcome = line_ != nullptr && arrival->newcomer.promised && line_->is_short()
                           ? Outcome::kFewReplicas
                           : Outcome::kAway;
    settle(*arrival);
  }
}

void Arrivals::flush() {
  if (line_ != nullptr) {
    line_->flush();
  }
  while (!gathered_.empty()) {
    Sent some;
    size_t bytes = 0;
    while (!gathered_.empty() && some.size() < SharedOrder::kMostAdded &&
           bytes < SharedOrder::kMostBytes) {
      if (const Arrival* const next = find(gathered_.front().first, gathered_.front().second);
          next != nullptr) {
        bytes += next->newcomer.body.size();
        some.push_back(std::move(gathered_.front()));
      }
      gathered_.pop_front();
    }
    if (!some.empty() && !send(some)) {
      for (const auto& [id, number] : some) {
        find(id, number)->asking = false;
      }
    }
  }
}

bool Arrivals::send(const Sent& some) {
  std::vector<SharedOrder::Job> jobs;
  for (const auto& [id, number] : some) {
    jobs.push_back(find(id, number)->newcomer.as_job());
  }
  return order_.add(jobs, [this, some, alive = alive_](auto& answer) {
    if (*alive) {
      answered(some, answer);
    }
  });
}

// What Redis refuses of several it may refuse for one of them: each is asked for alone.
void Arrivals::answered(const Sent& some,
                        SharedOrder::Answer<std::vector<SharedOrder::Added>>& answer) {
  const bool each_alone = answer.trouble == SharedOrder::Trouble::kRefused && some.size() > 1;
  for (size_t i = 0; i < some.size(); ++i) {
    Arrival* const its = find(some[i].first, some[i].second);
    if (its == nullptr || (each_alone && send({some[i]}))) {
      continue;
    }
    Answer one{{}, answer.trouble, answer.why};
    if (answer) {
      one.value = std::move(answer.value[i]);
    }
    answered(*its, one);
  }
}

Arrivals::Arrival* Arrivals::find(const std::string& id, uint64_t number) {
  const auto found = arrivals_.find(id);
  return found == arrivals_.end() || found->second.number != number ? nullptr : &found->second;
}

void Arrivals::ask(Arrival& arrival) {
  arrival.newcomer.home = calls_.home();
  if (arrival.newcomer.home.empty()) {
    return;  // nobody could be told what comes of it: this host joins in a moment
  }
  const bool by_line = line_ != nullptr && arrival.newcomer.promised;
  if (by_line ? !line_->ready() : !order_.ready()) {
    return;  // Redis is away, or the queue on its way to another
  }
  arrival.asking = true;
  if (!by_line) {
    gathered_.emplace_back(arrival.newcomer.id, arrival.number);
    return;
  }
  line_->add(arrival.newcomer.as_job(), [this, id = arrival.newcomer.id, number = arrival.number,
                                         alive = alive_](const Answer& answer) {
    if (Arrival* const its = *alive ? find(id, number) : nullptr; its != nullptr) {
      answered(*its, answer);
    }
  });
}

void Arrivals::answered(Arrival& arrival, const Answer& answer) {
  arrival.asking = false;
  const bool few = line_ != nullptr && line_->is_short();
  if (few && !short_) {
    log(Level::kError, "queue " + queue_ + ": jobs are not promised: fewer than " +
                           std::to_string(line_->replicas()) + " replicas acknowledge within " +
                           std::to_string(PromiseLine::kWaitMs) + " ms");
  }
  short_ = few;
  if (answer.trouble == SharedOrder::Trouble::kUnknown) {
    return;  // it is asked again, for a while
  }
  const bool refused = answer.trouble == SharedOrder::Trouble::kRefused;
  if (refused && !refused_) {
    log(Level::kError,
        "queue " + queue_ + ": Redis takes no more jobs: " + std::string(answer.why));
  }
  refused_ = refused;
  using Admission = SharedOrder::Admission;
  const Admission is = answer.value.admission;
  arrival.added = answer.value;
  arrival.outcome = !answer                       ? Outcome::kAway
                    : is == Admission::kQueueFull ? Outcome::kQueueFull
                    : is == Admission::kOwnerFull ? Outcome::kOwnerFull
                    : is == Admission::kKeyUsed   ? Outcome::kKeyUsed
                    : is == Admission::kTooFar    ? Outcome::kTooFar
                                                  : Outcome::kAdded;
  if (answer) {
    calls_.came(arrival.newcomer.lane, answer.value.due_us);
  }
  settle(arrival);
}

// Nobody waits longer for the disk than for Redis, if that has refused.
void Arrivals::settle(Arrival& arrival) {
  if (!arrival.outcome || (arrival.writing && arrival.outcome == Outcome::kAdded)) {
    return;
  }
  if (!arrival.written && arrival.outcome == Outcome::kAdded) {
    arrival.outcome = Outcome::kAway;
  }
  const Outcome outcome = *arrival.outcome;
  const std::string id = arrival.newcomer.id;
  if (journal_ != nullptr && arrival.newcomer.promised) {
    outcome == Outcome::kAdded ? journal_->promised(id) : journal_->forget(id);
  }
  const Told told = std::move(arrival.told);
  const SharedOrder::Added added = std::move(arrival.added);
  arrivals_.erase(id);
  told(outcome, added);
}

}  // namespace penstock::queue
