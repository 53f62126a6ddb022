// Cost: what a request is reckoned to use, before it runs.
//
// A request costs one request. The tokens it may use are those of its prompt, by the model's
// running estimate of bytes a token, penstock_image_cost for each picture or sound, and those it
// asks for (max_tokens or max_completion_tokens, each of n answers; where it asks for none, what
// the model's answers use on average). Its GPU time is what the model's requests use on average. A
// penstock_cost formula over the body's fields takes the place of these. What was really used is
// settled at the end (receipt.h).
//
// An estimate, that of the prompt's tokens too, is never a reason to refuse for good: if `asked`
// alone is within what a limit holds, the limit is charged no more than it holds.
#pragma once

#include "ngx_module/request/request.h"

namespace penstock {

// What is wrong with a request, for its caller.
struct Fault {
  std::string_view detail = {};  // a sentence; empty: nothing is wrong
  std::string_view param = {};   // the field that is to blame; empty: no single one
};

// Why the fields of the request's body may not be what its server sees; a body that was not read
// has no fault.
Fault fault_of_body(ngx_http_request_t* r, RequestState& state) noexcept;

// Fills state.cost and state.asked, once.
// REQUIRES: the body, if there is one, was read, and is readable.
Fault reckon(ngx_http_request_t* r, RequestState& state) noexcept;

}  // namespace penstock
