#include "ngx_module/admit/prove.h"

#include "ngx_module/challenge/token.h"
#include "ngx_module/lease/shared_secret.h"
#include "ngx_module/request/suspend.h"

namespace penstock {
namespace {

Answered settle(ngx_http_request_t* r, TokenCheck& check) noexcept {
  const challenge::Keys& keys = keys_of(*check.limit->zone).signing();
  return settle_check(r, check, keys, holder_of(*check.limit, keys, caller_of(r, *check.limit)));
}

// Woken as a check is over, or by something else. The limit may have room again: a good token is
// worth its pass all the same.
void on_write(ngx_http_request_t* r) noexcept {
  const RequestState* state = find_state(r);
  if (state != nullptr && state->check != nullptr) {
    if (!state->check->over) {
      return stay_suspended(r);
    }
    settle(r, *state->check);
  }
  resume_phases(r);
}

Answered prove_by_work(ngx_http_request_t* r, const Limit& limit, std::string_view who,
                       std::string_view payload) noexcept {
  const auto solution = challenge::read_solution(payload);
  const challenge::Keys* const keys =
      solution ? keys_of(limit, solution->holder()) : keys_of(*limit.zone).begin();
  // An answer to another limit's challenge is that limit's to take.
  return payload.empty() || keys == nullptr
             ? Answered::kWrong
             : take_answer(r, limit, *keys, holder_of(limit, *keys, who),
                           solution.value_or(challenge::Solution{}));
}

Answered prove_by_token(ngx_http_request_t* r, RequestState& state, const Limit& limit,
                        std::string_view who, std::string_view token) noexcept {
  if (state.check == nullptr && !token.empty()) {
    const challenge::Keys& keys = keys_of(*limit.zone).signing();
    const Answered asked = ask_about(r, state, limit, holder_of(limit, keys, who), token);
    if (asked != Answered::kAsked) {
      return asked;
    }
    if (!state.check->over) {
      return suspend_phases(r, on_write) ? Answered::kAsked : Answered::kWrong;
    }
  }
  // Of several limits one takes it.
  return state.check != nullptr && state.check->limit == &limit ? settle(r, *state.check)
                                                                : Answered::kWrong;
}

Answered prove_one(ngx_http_request_t* r, RequestState& state, const Limit& limit) noexcept {
  const std::string_view who = caller_of(r, limit);
  if (who.empty()) {
    return Answered::kWrong;
  }
  if (has_pass(r, limit, who)) {
    return Answered::kRight;
  }
  const ChallengeProvider* const provider = loc_conf(r)->challenging.provider;
  const std::string_view payload = find_header(r, "penstock-solution");
  if (provider == nullptr ||
      (provider->on_away == OnAway::kPow && challenge::read_solution(payload))) {
    return prove_by_work(r, limit, who, payload);
  }
  return goes_on_without(r, limit, who) ? Answered::kRight
                                        : prove_by_token(r, state, limit, who, payload);
}

}  // namespace

Answered prove(ngx_http_request_t* r, RequestState& state,
               std::span<const ChargeResult> results) noexcept {
  Answered answered = Answered::kWrong;
  for (const ChargeResult& j : results) {
    if (j.decision->admit || j.advisory || !asks_challenge(state, j)) {
      continue;
    }
    switch (const Answered one = prove_one(r, state, *j.limit)) {
      case Answered::kRight:
        answered = state.met.add(j.limit, MetLimits::kVerified) ? Answered::kRight : answered;
        break;
      case Answered::kNoRoom:
      case Answered::kAsked:
      case Answered::kBusy:
        return one;
      case Answered::kWrong:
        break;
    }
  }
  return answered;
}

}  // namespace penstock
