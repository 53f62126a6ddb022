#include "ngx_module/admit/prove.h"

#include "ngx_module/lease/shared_secret.h"

namespace penstock {
namespace {

Answered prove_one(ngx_http_request_t* r, const Limit& limit) noexcept {
  const std::string_view who = caller_of(r, limit);
  if (who.empty()) {
    return Answered::kWrong;
  }
  if (has_pass(r, limit, who)) {
    return Answered::kRight;
  }
  const std::string_view payload = find_header(r, "penstock-solution");
  const auto solution = challenge::read_solution(payload);
  const challenge::Keys* const keys =
      solution ? keys_of(limit, solution->holder()) : keys_of(*limit.zone).begin();
  // An answer to another limit's challenge is that limit's to take.
  return payload.empty() || keys == nullptr
             ? Answered::kWrong
             : take_answer(r, limit, *keys, holder_of(limit, *keys, who),
                           solution.value_or(challenge::Solution{}));
}

}  // namespace

Answered prove(ngx_http_request_t* r, RequestState& state,
               std::span<const ChargeResult> results) noexcept {
  Answered answered = Answered::kWrong;
  for (const ChargeResult& j : results) {
    if (j.decision->admit || j.advisory || !asks_challenge(state, j)) {
      continue;
    }
    switch (prove_one(r, *j.limit)) {
      case Answered::kRight:
        answered = state.met.add(j.limit, MetLimits::kVerified) ? Answered::kRight : answered;
        break;
      case Answered::kNoRoom:
        return Answered::kNoRoom;
      case Answered::kWrong:
        break;
    }
  }
  return answered;
}

}  // namespace penstock
