// Cost: what a request is reckoned to use, before it runs.
//
// A request costs one request. The tokens it may use are those of its prompt, by the model's running
// estimate of bytes a token, and those it asks for (max_tokens or max_completion_tokens, each of n
// answers; where it asks for none, what the model's answers use on average). Its GPU time is what
// the model's requests use on average. What is only an average is never a reason to refuse for good: a
// limit is charged no more of it than it holds. A penstock_cost formula over the body's fields takes the
// place of these. What was really used is settled at the end (receipt.h).
#pragma once

#include "ngx_module/request.h"

namespace penstock {

// Fills state.cost, once. Empty, or what is wrong with the request: a sentence for the caller.
// REQUIRES: the body, if there is one, was read.
std::string_view reckon(ngx_http_request_t* r, RequestState& state) noexcept;

}  // namespace penstock
