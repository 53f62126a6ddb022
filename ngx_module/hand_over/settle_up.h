// What a request that was handed over stays charged for, once that is over; and penstockd's ledger
// told of it.
#pragma once

#include "ngx_module/admit/job_headers.h"
#include "ngx_module/request/request.h"

namespace penstock {

constexpr uint64_t kJob = 1;  // its id: one job at a time is on a connection

inline bool wants_promise(const RequestState& state) noexcept {
  return state.job_headers != nullptr && state.job_headers->want_promise();
}

// `failed`: it, or its server, did, by no fault of its caller's. `left`: its caller did.
// REQUIRES: the connection to penstockd is still the request's.
void settle_up(ngx_http_request_t* r, RequestState& state, bool failed, bool left) noexcept;

}  // namespace penstock
