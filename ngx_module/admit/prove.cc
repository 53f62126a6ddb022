#include "ngx_module/admit/prove.h"

namespace penstock {
namespace {

Answered prove_one(ngx_http_request_t* r, const Limit& limit) noexcept {
  challenge::Holder holder;
  if (!holder_of(r, limit, holder)) {
    return Answered::kWrong;
  }
  if (has_pass(r, limit, holder)) {
    return Answered::kRight;
  }
  const std::string_view payload = find_header(r, "penstock-solution");
  const auto solution = challenge::read_solution(payload);
  // An answer to another limit's challenge is that limit's to take.
  if (!payload.empty() && (!solution || solution->holder().limit == holder.limit)) {
    return take_answer(r, limit, holder, solution.value_or(challenge::Solution{}));
  }
  return Answered::kWrong;
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
