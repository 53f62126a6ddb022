#include "worker/queue/shared_order/shared_order.h"

#include <sys/random.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "shared/base/clock.h"
#include "shared/redis/connection.h"
#include "worker/queue/order/backoff.h"
#include "worker/queue/shared_order/script_request.h"

namespace penstock::queue {
namespace {

bool read_end(const redisReply& answer, SharedOrder::End& end) {
  end = static_cast<SharedOrder::End>(answer.integer);
  return is_number(answer) && answer.integer >= -1 && answer.integer <= 2;
}

bool read_text(const redisReply& answer, std::string& text) {
  text = redis::is_text(answer) ? redis::text_of(answer) : std::string_view();
  return redis::is_text(answer);
}

bool read_known(const redisReply& answer, SharedOrder::Known& known) {
  using State = SharedOrder::Known::State;
  if (!is_array(answer, 1)) {
    return false;
  }
  const int64_t state = number_at(answer, 0);
  known.state = static_cast<State>(state);
  if (state < 1 || state > 5 || answer.elements < 10) {
    return state == 0;
  }
  known.attempts = static_cast<uint32_t>(number_at(answer, 1));
  known.fence = static_cast<uint64_t>(number_at(answer, 2));
  known.host = text_at(answer, 3);
  const std::string how = text_at(answer, 4);
  known.how = how.empty() ? '\0' : how.front();
  known.result = text_at(answer, 5);
  known.ended_us = number_at(answer, 6);
  known.tries = static_cast<uint32_t>(number_at(answer, 7));
  known.outcome = static_cast<uint8_t>(number_at(answer, 8));
  known.due_us = number_at(answer, 9);
  return true;
}

}  // namespace

SharedOrder::SharedOrder(redis::Servers& servers, Scheduler::QueueSettings queue, int64_t keep_ms,
                         uint64_t seed)
    : servers_(servers),
      queue_(std::move(queue)),
      key_(std::string(servers.prefix()) + "{" + queue_.name + "}:"),
      keep_ms_(keep_ms),
      random_(seed) {}

std::string SharedOrder::new_host() {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz234567";
  uint64_t random = 0;
  if (getrandom(&random, sizeof random, 0) != sizeof random) {
    std::abort();  // as JobIdMaker: a kernel that has booted has some
  }
  std::string name;
  for (; name.size() < kHostBytes; random >>= 5) {
    name.push_back(kLetters[random % kLetters.size()]);
  }
  return name;
}

ScriptWords SharedOrder::words(int64_t keep_ms) const {
  ScriptWords words;
  words.number(now_us_)
      .number(queue_.aging_ns / kNsPerUs)
      .number(keep_ms == 0 ? keep_ms_ : keep_ms);
  return words;
}

bool SharedOrder::serve(std::string_view host, std::string_view lane, size_t most,
                        std::span<const Finished> finished, Then<Served> then) {
  static_assert(6 + 5 * kMostFinished <= redis::Connection::kMostArguments);  // as follows
  ScriptWords words = this->words();
  words.text(host).text(lane).number(static_cast<int64_t>(std::min(most, kMostTaken)));
  for (const Finished& each : finished) {
    words.text(each.id).number(static_cast<int64_t>(each.fence)).text(each.result);
    words.number(each.keep_ms).own(std::string(1, each.how));
  }
  const auto read = [](const redisReply& answer, Served& served) {
    constexpr size_t kEach = 9;
    if (!is_array(answer, 4) || !is_array(*answer.element[2], 0) ||
        !is_array(*answer.element[3], 0) || answer.element[3]->elements % kEach != 0) {
      return false;
    }
    served.known = number_at(answer, 0) == 1;
    served.due_us = number_at(answer, 1);
    const redisReply& ended = *answer.element[2];
    for (size_t i = 0; i < ended.elements; ++i) {
      served.ended.push_back(static_cast<End>(number_at(ended, i)));
    }
    const redisReply& jobs = *answer.element[3];
    for (size_t i = 0; i < jobs.elements; i += kEach) {
      served.taken.push_back({.id = text_at(jobs, i),
                              .fence = static_cast<uint64_t>(number_at(jobs, i + 1)),
                              .attempts = static_cast<uint32_t>(number_at(jobs, i + 2)),
                              .came_us = number_at(jobs, i + 3),
                              .deadline_us = number_at(jobs, i + 4),
                              .owner = number_of(text_at(jobs, i + 5)),
                              .lane = text_at(jobs, i + 6),
                              .home = text_at(jobs, i + 7),
                              .body = text_at(jobs, i + 8)});
    }
    return true;
  };
  return ask<Served>(order_script::kServe, words, read, std::move(then));
}

bool SharedOrder::retry(const Return& job, uint32_t attempts, Scheduler::Cause cause,
                        Then<End> then) {
  const uint32_t waits = attempts + (cause == Scheduler::Cause::kJobFailed ? 1 : 0);
  const bool last = attempts + 1 >= queue_.attempts;
  int64_t delay_ns = 0;
  if (!last && cause != Scheduler::Cause::kWorkerLostAlone && waits > 0 && queue_.backoff_ns > 0) {
    const int64_t factor = int64_t{1} << std::min<uint32_t>(waits - 1, 20);
    const int64_t most_ns = std::min(queue_.backoff_ns, Scheduler::kMaxBackoffNs / factor) * factor;
    delay_ns = with_jitter(most_ns, random_);
  }
  ScriptWords words = this->words();
  words.text(job.id).text(job.host).number(static_cast<int64_t>(job.fence)).number(1);
  words.number(queue_.attempts).number((delay_ns + kNsPerUs - 1) / kNsPerUs).text(job.result);
  return ask<End>(order_script::kBack, words, read_end, std::move(then));
}

bool SharedOrder::requeue(const Return& job, int64_t after_us, Then<End> then) {
  ScriptWords words = this->words();
  words.text(job.id).text(job.host).number(static_cast<int64_t>(job.fence)).number(0);
  words.number(queue_.attempts).number(after_us).text(job.result);
  return ask<End>(order_script::kBack, words, read_end, std::move(then));
}

bool SharedOrder::cancel(std::string_view id, std::string_view result, Then<End> then,
                         int64_t keep_ms) {
  ScriptWords words = this->words(keep_ms);
  words.text(id).text(result);
  return ask<End>(order_script::kCancel, words, read_end, std::move(then));
}

bool SharedOrder::mend(std::string_view id, uint64_t fence, char how, std::string_view result,
                       int64_t keep_ms, Then<End> then) {
  ScriptWords words = this->words();
  words.text(id).own(std::string(1, how)).text(result).number(keep_ms);
  words.number(static_cast<int64_t>(fence));
  return ask<End>(order_script::kMend, words, read_end, std::move(then));
}

bool SharedOrder::positions(std::span<const std::string_view> ids,
                            Then<std::vector<int64_t>> then) {
  return ask_of(order_script::kPosition, ids, std::move(then));
}

bool SharedOrder::states(std::span<const std::string_view> ids, Then<std::vector<int64_t>> then) {
  return ask_of(order_script::kStates, ids, std::move(then));
}

bool SharedOrder::note_result(std::string_view name, int64_t after_ms, Then<bool> then) {
  ScriptWords words = this->words();
  words.text(name).number(after_ms);
  const auto read = [](const redisReply& answer, bool& done) { return done = is_number(answer); };
  return ask<bool>(order_script::kNote, words, read, std::move(then));
}

bool SharedOrder::stale_results(size_t most, Then<std::vector<std::string>> then) {
  ScriptWords words = this->words();
  words.number(static_cast<int64_t>(most));
  const auto read = [](const redisReply& answer, std::vector<std::string>& names) {
    for (size_t i = 0; is_array(answer, 0) && i < answer.elements; ++i) {
      names.push_back(text_at(answer, i));
    }
    return is_array(answer, 0);
  };
  return ask<std::vector<std::string>>(order_script::kStale, words, read, std::move(then));
}

bool SharedOrder::ask_of(redis::Script script, std::span<const std::string_view> ids,
                         Then<std::vector<int64_t>> then) {
  std::string all;
  for (const std::string_view id : ids) {
    all.append(id).push_back(' ');
  }
  ScriptWords words = this->words();
  words.own(std::move(all));
  const auto read = [](const redisReply& answer, std::vector<int64_t>& positions) {
    for (size_t i = 0; is_array(answer, 0) && i < answer.elements; ++i) {
      positions.push_back(number_at(answer, i));
    }
    return is_array(answer, 0);
  };
  return ask<std::vector<int64_t>>(script, words, read, std::move(then));
}

bool SharedOrder::advance(Then<Advanced> then) {
  const auto read = [](const redisReply& answer, Advanced& advanced) {
    if (!is_array(answer, 1)) {
      return false;
    }
    advanced.due_us = number_at(answer, 0);
    for (size_t i = 1; i < answer.elements; ++i) {
      advanced.expired.push_back(text_at(answer, i));
    }
    return true;
  };
  return ask<Advanced>(order_script::kAdvance, words(), read, std::move(then));
}

bool SharedOrder::renew(std::string_view host, Life life, int64_t lease_us, Then<Renewed> then,
                        std::string_view home) {
  ScriptWords words = this->words();
  words.text(host).number(lease_us).number(static_cast<int64_t>(life)).text(home);
  const auto read = [](const redisReply& answer, Renewed& renewed) {
    if (!is_array(answer, 1)) {
      return false;
    }
    renewed.known = number_at(answer, 0) == 1;
    if (!renewed.known || answer.elements < 5) {
      return !renewed.known;
    }
    renewed.running = static_cast<uint64_t>(number_at(answer, 1));
    renewed.hosts = static_cast<uint64_t>(number_at(answer, 2));
    renewed.made_us = number_at(answer, 3);
    renewed.due_us = number_at(answer, 4);
    return true;
  };
  return ask<Renewed>(order_script::kRenew, words, read, std::move(then));
}

bool SharedOrder::reap(size_t most, Then<Reaped> then) {
  constexpr uint64_t kBelow = uint64_t{1} << 52;  // a double has it
  random_ = random_ * 6364136223846793005U + 1442695040888963407U;
  ScriptWords words = this->words();
  words.number(queue_.attempts).number(queue_.backoff_ns / kNsPerUs);
  words.number(static_cast<int64_t>((random_ >> 11) % kBelow)).number(static_cast<int64_t>(most));
  words.number(kMissedUs);
  const auto read = [](const redisReply& answer, Reaped& reaped) {
    if (!redis::is_numbers(answer, 3)) {
      return false;
    }
    reaped = {redis::number_of(answer, 0), redis::number_of(answer, 1),
              redis::number_of(answer, 2)};
    return true;
  };
  return ask<Reaped>(order_script::kReap, words, read, std::move(then));
}

bool SharedOrder::held(std::string_view host, Then<std::vector<Held>> then) {
  ScriptWords words = this->words();
  words.text(host);
  const auto read = [](const redisReply& answer, std::vector<Held>& held) {
    for (size_t i = 0; is_array(answer, 0) && i + 1 < answer.elements; i += 2) {
      held.push_back(
          {text_at(answer, i), std::strtoull(text_at(answer, i + 1).c_str(), nullptr, 10)});
    }
    return is_array(answer, 0);
  };
  return ask<std::vector<Held>>(order_script::kHeld, words, read, std::move(then));
}

bool SharedOrder::pause(bool paused, Then<bool> then) {
  ScriptWords words = this->words();
  words.number(paused ? 1 : 0);
  const auto read = [](const redisReply& answer, bool& done) { return done = is_number(answer); };
  return ask<bool>(order_script::kPause, words, read, std::move(then));
}

bool SharedOrder::tell(const Say& say, Then<Roster> then) {
  ScriptWords words = this->words();
  words.text(say.host).text(say.text).number(say.lasts_us).text(say.secret);
  words.text(say.back).text(say.to);
  const auto read = [](const redisReply& answer, Roster& roster) {
    constexpr size_t kEach = 3;
    if (!is_array(answer, 6) || !is_array(*answer.element[3], 0) ||
        !is_array(*answer.element[4], 0) || !is_array(*answer.element[5], 0)) {
      return false;
    }
    roster.secret = text_at(answer, 0);
    roster.paused = number_at(answer, 1) == 1;
    roster.waiting = static_cast<uint64_t>(number_at(answer, 2));
    const redisReply& lanes = *answer.element[3];
    for (size_t i = 0; i + kEach <= lanes.elements; i += kEach) {
      roster.lanes.push_back({text_at(lanes, i), static_cast<uint64_t>(number_at(lanes, i + 1)),
                              number_at(lanes, i + 2)});
    }
    const redisReply& leases = *answer.element[4];
    for (size_t i = 0; i + kEach <= leases.elements; i += kEach) {
      roster.leases.push_back({text_at(leases, i), number_at(leases, i + 1),
                               static_cast<uint64_t>(number_at(leases, i + 2))});
    }
    const redisReply& said = *answer.element[5];
    for (size_t i = 0; i + 1 < said.elements; i += 2) {
      roster.said.push_back({number_at(said, i), text_at(said, i + 1)});
    }
    return true;
  };
  return ask<Roster>(order_script::kRoster, words, read, std::move(then));
}

bool SharedOrder::look(std::string_view id, size_t most, Then<Known> then) {
  ScriptWords words = this->words();
  words.text(id).number(static_cast<int64_t>(most));
  return ask<Known>(order_script::kLook, words, read_known, std::move(then));
}

bool SharedOrder::list(std::string_view owner, bool dead, std::string_view before, size_t most,
                       size_t bytes, Then<List> then) {
  ScriptWords words = this->words();
  words.own(dead ? "z" : owner.empty() ? "u" : "u|" + std::string(owner)).text(before);
  words.number(static_cast<int64_t>(most)).number(static_cast<int64_t>(bytes));
  const auto read = [](const redisReply& answer, List& list) {
    if (!is_array(answer, 2) || !is_array(*answer.element[1], 0)) {
      return false;
    }
    list.last = text_at(answer, 0);
    const redisReply& jobs = *answer.element[1];
    for (size_t i = 0; i + 1 < jobs.elements; i += 2) {
      if (!read_known(*jobs.element[i + 1],
                      list.jobs.emplace_back(text_at(jobs, i), Known()).second)) {
        return false;
      }
    }
    return true;
  };
  return ask<List>(order_script::kList, words, read, std::move(then));
}

bool SharedOrder::body(std::string_view id, Then<std::string> then) {
  ScriptWords words = this->words();
  words.text(id);
  return ask<std::string>(order_script::kBody, words, read_text, std::move(then));
}

bool SharedOrder::earlier(std::string_view asked, Then<std::string> then) {
  ScriptWords words = this->words();
  words.text(asked).text("").number(0);
  return ask<std::string>(order_script::kEarlier, words, read_text, std::move(then));
}

bool SharedOrder::completed(std::string_view asked, std::string_view id, int64_t keep_ms) {
  ScriptWords words = this->words();
  words.text(asked).text(id).number(keep_ms == 0 ? keep_ms_ : keep_ms);
  return ask<std::string>(order_script::kEarlier, words, read_text,
                          [](const Answer<std::string>&) {});
}

bool SharedOrder::drop(std::string_view id, Then<bool> then) {
  ScriptWords words = this->words();
  words.text(id);
  const auto read = [](const redisReply& answer, bool& dropped) {
    dropped = is_number(answer) && answer.integer == 1;
    return is_number(answer);
  };
  return ask<bool>(order_script::kDrop, words, read, std::move(then));
}

bool SharedOrder::sweep(Then<bool> then) {
  ScriptWords words = this->words();
  words.number(kMostSwept);
  const auto read = [](const redisReply& answer, bool& more) {
    more = is_number(answer) && answer.integer == 1;
    return is_number(answer);
  };
  return ask<bool>(order_script::kSweep, words, read, std::move(then));
}

}  // namespace penstock::queue
