// Refusals and errors: every one that leaves a Penstock location is a problem+json body (CONTRACT,
// section 4).
#pragma once

#include "ngx_module/request.h"
#include "shared/http/problem.h"

namespace penstock {

// A problem as a body in the pool; data is nullptr when memory ran out.
ngx_str_t render_problem(ngx_pool_t* pool, const http::Problem& problem) noexcept;

constexpr std::string_view kProblemType = "application/problem+json";
void set_content_type(ngx_http_request_t* r, std::string_view type) noexcept;

// "Retry-After: N". nullptr when memory ran out.
ngx_table_elt_t* push_retry_after(ngx_http_request_t* r, int64_t seconds) noexcept;

// Answers a request that is still in a phase handler; give the result to Nginx as that handler's
// own. The operator's error_page for the status, if there is one, has the word instead.
ngx_int_t refuse_request(ngx_http_request_t* r, const http::Problem& problem) noexcept;
// The same with the problem's body at hand.
ngx_int_t refuse_request(ngx_http_request_t* r, int status, int64_t retry_after_s,
                         ngx_str_t body) noexcept;

// Puts a problem in place of the error pages that Nginx itself would send from a Penstock location
// (413, 502 ...).
void install_problem_filters() noexcept;

}  // namespace penstock
