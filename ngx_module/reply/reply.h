// Refusals and errors: every one that leaves a Penstock location is a problem+json body (CONTRACT,
// section 4).
#pragma once

#include "ngx_module/conf/text.h"
#include "ngx_module/request/request.h"
#include "shared/http/problem.h"

namespace penstock {

// A problem as a body in the pool; data is nullptr when memory ran out.
ngx_str_t render_problem(ngx_pool_t* pool, const http::Problem& problem) noexcept;

// Text that lives as long as the request, as all of its body; nullptr when memory ran out.
ngx_chain_t* chain_of(ngx_http_request_t* r, ngx_str_t body) noexcept;

constexpr std::string_view kProblemType = "application/problem+json";
void set_content_type(ngx_http_request_t* r, std::string_view type) noexcept;

// When to come back: "Retry-After: N", retry-after-ms, and, where that is longer than SDKs wait,
// "x-should-retry: false": they would come at once. `push(name, value)` adds a header; false when
// memory ran out.
template <class Push>
bool push_retry(ngx_pool_t* pool, int64_t seconds, const Push& push) noexcept {
  constexpr int64_t kLongestOfSdksSeconds = 120;
  const auto number = static_cast<uint64_t>(seconds);
  const ngx_str_t text = copy_number(pool, number);
  const ngx_str_t ms = copy_number(pool, number * 1000);
  return text.data != nullptr && ms.data != nullptr && push("Retry-After", text) &&
         push("retry-after-ms", ms) &&
         (seconds <= kLongestOfSdksSeconds || push("x-should-retry", str("false")));
}
// The same on the answer to a request; what it had been given of these is taken back.
bool push_retry_headers(ngx_http_request_t* r, int64_t seconds) noexcept;

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
