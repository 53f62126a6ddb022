// Prove: a caller over a limit with action=challenge shows that it has solved one.
#pragma once

#include "ngx_module/admit/charges.h"
#include "ngx_module/challenge/pass.h"

namespace penstock {

// Whether this refusal asks for a challenge: the second limit of those who have a pass does not.
inline bool asks_challenge(const RequestState& state, const ChargeResult& result) noexcept {
  return result.limit->action == Action::kChallenge &&
         !state.met.has(result.limit, MetLimits::kVerified);
}

// Looks for the passes and the answer that the request brings, for each limit that has refused it.
// kRight: for one at least there is a pass, and it is judged by its second limit from now on.
// kAsked: the request is suspended, and judged anew once the provider has said what it says.
Answered prove(ngx_http_request_t* r, RequestState& state,
               std::span<const ChargeResult> results) noexcept;

}  // namespace penstock
