// Admission: every limit on a request judged together, before anything is handed over.
#pragma once

#include "ngx_module/request/request.h"
#include "shared/http/problem.h"

namespace penstock {

// Handlers of the preaccess phase, and of the one behind the access phase.
ngx_int_t judge_before_access(ngx_http_request_t* r) noexcept;
ngx_int_t judge_after_access(ngx_http_request_t* r) noexcept;

// Of the log phase: only now is it certain what became of the request.
ngx_int_t count_outcome(ngx_http_request_t* r) noexcept;

// Notes that the request's tier is none of those defined; returns what the caller is told.
http::Problem unknown_tier(ngx_http_request_t* r, const Limit& limit,
                           std::string_view name) noexcept;

}  // namespace penstock
