// Admit: what becomes of a request whose limits were all charged.
#pragma once

#include "ngx_module/admit/charges.h"
#include "ngx_module/request/request.h"

namespace penstock {

// It goes on, at once or when its time has come, with its charges kept for later and what it is
// told of them; returns what the phase handler is to return.
ngx_int_t admit(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept;

// No limit had a say in it.
void pass_uncharged(RequestState& state, const LocConf& loc, bool would_refuse) noexcept;

}  // namespace penstock
