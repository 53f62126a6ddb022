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

// Since the request came; at least 1, as Nginx counts milliseconds.
uint64_t passed_us(const ngx_http_request_t* r) noexcept;

// Whether that is the end of a job which ran when the time was over that its caller had given it.
bool is_overdue(const ngx_http_request_t* r, const RequestState& state,
                std::string_view code) noexcept;

// What penstockd says of the job's place; 0: it runs. `eta_ms`: until it starts, 0 where nobody
// knows. By what was said last a caller that leaves pays.
void note_place(RequestState& state, uint64_t position, uint64_t eta_ms) noexcept;

// `failed`: it, or its server, did, by no fault of its caller's. `left`: its caller did.
// REQUIRES: the connection to penstockd is still the request's.
void settle_up(ngx_http_request_t* r, RequestState& state, bool failed, bool left) noexcept;

}  // namespace penstock
