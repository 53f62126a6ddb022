// The head of an answer: what comes from penstockd until its first byte, made into an HTTP
// response's status and headers.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// Nginx's process_header: ACCEPTED, PROGRESS, then HEAD, FAILED or GOODBYE.
ngx_int_t read_answer_head(ngx_http_request_t* r) noexcept;

}  // namespace penstock
