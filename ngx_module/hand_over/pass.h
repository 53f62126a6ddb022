// penstock_pass: hands the request to penstockd as a job, and its answer to the client.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

struct RequestState;

// The content handler of a location with penstock_pass.
ngx_int_t pass_request(ngx_http_request_t* r) noexcept;

// Gives the request to penstockd through Nginx's upstream machinery: a job (SUBMIT) where
// penstock_pass stands, a question (ASK) where penstock_jobs does. For a content handler, which
// returns what it returns.
ngx_int_t hand_to_upstream(ngx_http_request_t* r, RequestState& state) noexcept;

}  // namespace penstock
