// What is counted for a key, and which keys are refused most: the part of the console that Nginx
// itself answers (console.h has the formats).
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// PREFIX/limits: shown by GET, forgotten by DELETE.
ngx_int_t answer_limits(ngx_http_request_t* r) noexcept;

// PREFIX/offenders.
ngx_int_t answer_offenders(ngx_http_request_t* r) noexcept;

}  // namespace penstock
