#include "worker/queue/shared_order/membership.h"

#include <algorithm>

#include "shared/base/clock.h"

namespace penstock::queue {

const std::string Membership::kNone;

Membership::Membership(SharedOrder& order, User& user) : order_(order), user_(user) {}

Membership::~Membership() { *alive_ = false; }

void Membership::advance_to(int64_t now_ns) {
  now_ns_ = now_ns;
  begun_ns_ = begun_ns_ == 0 ? now_ns : begun_ns_;
  if (is_in_ && now_ns >= ends_ns_) {
    expel("Redis has not answered for " + std::to_string(kLeaseNs / kNsPerSec) + " s");
  }
  if (now_ns >= renew_ns_) {
    renew_ns_ = now_ns + kEveryNs;
    renew(now_ns);
    reap();
  }
  if (now_ns >= due_ns_) {
    due_ns_ = INT64_MAX;
    advance();
  }
}

int64_t Membership::next_event() const noexcept {
  return std::min({renew_ns_, due_ns_, is_in_ ? ends_ns_ : INT64_MAX});
}

void Membership::note_due(int64_t due_us, int64_t now_ns) noexcept {
  if (due_us != SharedOrder::kNever) {
    // Below a millisecond nobody is woken anew.
    due_ns_ = std::min(due_ns_, now_ns + std::max(due_us * kNsPerUs, kNsPerMs));
  }
}

// One renewal at a time: an answer is of the name that it has then.
void Membership::renew(int64_t now_ns) {
  if (asking_) {
    return;
  }
  if (!is_in_) {
    host_ = SharedOrder::new_host();
  }
  const auto life = is_in_ ? SharedOrder::Life::kStays : SharedOrder::Life::kJoins;
  asking_ = order_.renew(
      host_, life, kLeaseNs / kNsPerUs,
      [this, now_ns, alive = alive_,
       host = host_](const SharedOrder::Answer<SharedOrder::Renewed>& answer) {
        if (!*alive) {
          return;
        }
        asking_ = false;
        if (answer && host == host_) {
          renewed(answer.value, now_ns);
        }
      },
      home_);
}

void Membership::renewed(const SharedOrder::Renewed& answer, int64_t sent_ns) {
  if (!answer.known) {
    if (is_in_) {
      expel("Redis does not know this host any more");
    }
    renew_ns_ = now_ns_;
    return;
  }
  hosts_ = answer.hosts;
  renewed_ns_ = sent_ns;
  ends_ns_ = sent_ns + kLeaseNs - kMarginNs;
  note_due(answer.due_us, now_ns_);
  const bool lost = made_us_ != 0 && made_us_ != answer.made_us;
  made_us_ = answer.made_us;
  if (!is_in_ && now_ns_ < ends_ns_) {
    is_in_ = true;
    user_.on_joined();
  } else if (is_in_ && answer.running != user_.running()) {
    compare();
  }
  if (lost) {
    user_.on_lost_data();
  }
}

void Membership::expel(std::string_view why) {
  is_in_ = false;
  host_.clear();
  user_.on_expelled(why);
}

// Answers come in the order of the requests, so all that was taken before was heard of by then.
void Membership::compare() {
  order_.held(host_, [this, alive = alive_, host = host_](
                         const SharedOrder::Answer<std::vector<SharedOrder::Held>>& answer) {
    if (!*alive || !answer || host != host_ || !is_in_) {
      return;
    }
    for (const SharedOrder::Held& each : answer.value) {
      if (!user_.runs(each.id, each.fence)) {
        order_.requeue({.id = each.id, .host = host_, .fence = each.fence, .result = {}}, 0,
                       [](const SharedOrder::Answer<SharedOrder::End>&) {});
      }
    }
    user_.on_held(answer.value);
  });
}

void Membership::advance() {
  order_.advance([this, alive = alive_](const SharedOrder::Answer<SharedOrder::Advanced>& answer) {
    if (*alive && answer) {
      note_due(answer.value.due_us, now_ns_);
    }
  });
}

void Membership::reap() {
  order_.reap(kMostReaped,
              [this, alive = alive_](const SharedOrder::Answer<SharedOrder::Reaped>& answer) {
                if (!*alive || !answer) {
                  return;
                }
                reaped_ += answer.value.back + answer.value.over;
                if (answer.value.hosts > 0) {
                  reap();
                }
              });
}

void Membership::leave() {
  if (is_in_) {
    is_in_ = false;
    order_.renew(
        host_, SharedOrder::Life::kLeaves, 0,
        [](const SharedOrder::Answer<SharedOrder::Renewed>&) {}, home_);
    host_.clear();
  }
  renew_ns_ = INT64_MAX;
}

}  // namespace penstock::queue
