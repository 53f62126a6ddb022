// Admit: what becomes of a request whose limits were all charged.
#pragma once

#include "ngx_module/admit/charges.h"
#include "ngx_module/request/request.h"

namespace penstock {

// The request goes on, at once or after its delay. Its charges are kept for later, and its answer
// gets the headers that tell of them. Returns what the phase handler is to return.
ngx_int_t admit(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept;

// No limit applies to the request.
void pass_uncharged(RequestState& state, const LocConf& loc, bool would_refuse) noexcept;

}  // namespace penstock
