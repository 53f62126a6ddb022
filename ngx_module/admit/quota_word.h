// A word on quotas with `warn=`, when a key has used so much of one, and when it has used it up: in
// the log, and to penstockd for the operator's hooks.
#pragma once

#include "ngx_module/admit/charges.h"

namespace penstock {

// Of what has just been charged, or refused. Each key is told of once in each period for each of
// the two, by all workers of this Nginx together.
void tell_of_quotas(ngx_http_request_t* r, Charges& charges) noexcept;

}  // namespace penstock
