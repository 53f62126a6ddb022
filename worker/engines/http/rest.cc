#include "worker/engines/http/rest.h"

#include <algorithm>
#include <utility>

namespace penstock::http_engine {

int64_t Rest::rest(Cause cause, int64_t started_ns, int64_t now_ns) {
  const bool again = started_ns >= until_ns_;  // else it is of those that the last rest was for
  if (cause.asked_ns.value_or(0) <= 0) {       // none at all would hammer the server
    cause.asked_ns.reset();
  }
  if (cause.asked_ns) {
    backoff_ns_ = 0;
  } else if (again) {
    backoff_ns_ = std::min(std::max(backoff_ns_ * 2, settings_.first_ns), settings_.most_ns);
  }
  int64_t rest_ns = std::min(cause.asked_ns.value_or(backoff_ns_), settings_.max_hold_ns);
  rest_ns = cause.quota ? std::max(rest_ns, std::min(kQuotaNs, settings_.max_hold_ns)) : rest_ns;
  if (again || now_ns + rest_ns > until_ns_) {
    until_ns_ = now_ns + rest_ns;
    cause_ = std::move(cause);
  }
  tries_ = true;
  try_slots_ = 0;
  return until_ns_ - now_ns;
}

void Rest::answered(int64_t started_ns) {
  if (started_ns >= until_ns_) {
    tries_ = false;
    backoff_ns_ = 0;
  }
}

void Rest::hold(const std::string& why) {
  held_ = true;
  held_why_ = why;
}

void Rest::release() {
  held_ = false;
  if (cause_.out && !cause_.quota) {
    until_ns_ = 0;
  }
}

void Rest::crowd(uint64_t waiting, uint32_t running) {
  if (waiting > 0) {
    const uint64_t fit = running > waiting ? running - waiting : 1;
    crowded_ = static_cast<uint32_t>(std::min<uint64_t>(crowded_, fit));
  } else if (running + 1 >= crowded_) {
    crowded_ = std::min(crowded_ + 1, settings_.slots);
  }
}

Rest::State Rest::state(uint32_t running, int64_t now_ns) {
  if (held_) {
    return {.out = true, .why = held_why_};
  }
  if (now_ns < until_ns_) {
    return {.out = cause_.out, .until_ns = until_ns_, .why = cause_.why};
  }
  if (tries_ && now_ns >= until_ns_ + kTryNs) {
    tries_ = false;  // nothing has gone wrong; the doubling ends only with an answer
  }
  if (tries_) {
    try_slots_ = try_slots_ == 0 ? running + 1 : try_slots_;
    return {.slots = std::min(try_slots_, crowded_),
            .why = "one job tries it after: " + cause_.why};
  }
  const bool crowded = crowded_ < settings_.slots;
  return {.slots = crowded_, .why = crowded ? "the server queues by itself" : ""};
}

int64_t Rest::next_event(int64_t now_ns) const {
  if (held_ || !tries_) {
    return INT64_MAX;
  }
  return now_ns < until_ns_ ? until_ns_ : until_ns_ + kTryNs;
}

}  // namespace penstock::http_engine
