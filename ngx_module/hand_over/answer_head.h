// The head of an answer: what comes from penstockd until its first byte, made into an HTTP
// response's status and headers.
#pragma once

#include "ngx_module/request/request.h"

namespace penstock {

// Nginx's process_header: ACCEPTED, PROGRESS, then HEAD, FAILED or GOODBYE.
ngx_int_t read_answer_head(ngx_http_request_t* r) noexcept;

// Headers that say how the limits stand now, or will once what was charged is given back, in the
// place of those that are there. False when memory ran out.
bool tell_of_limits(ngx_http_request_t* r, RequestState& state, bool given_back) noexcept;

}  // namespace penstock
