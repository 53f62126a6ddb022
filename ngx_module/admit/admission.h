// Admission: every limit on a request judged together, before anything is handed over.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// Handlers of the preaccess phase, and of the one behind the access phase.
ngx_int_t judge_before_access(ngx_http_request_t* r) noexcept;
ngx_int_t judge_after_access(ngx_http_request_t* r) noexcept;

// Handler of the log phase: only there is it certain what became of the request.
ngx_int_t count_outcome(ngx_http_request_t* r) noexcept;

}  // namespace penstock
