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

// Sets the content type as an upstream's head would. Lists of types, such as gzip_types, have them
// without parameters, and a charset that is given is not added again. Inlined, as most types are
// known beforehand.
inline void set_content_type(ngx_http_request_t* r, std::string_view type) noexcept {
  constexpr std::string_view kCharset = "charset=";
  const size_t end = ngx_min(type.find(';'), type.size());
  const size_t charset = type.find(kCharset, end);
  r->headers_out.content_type = str(type);
  r->headers_out.content_type_len = end;
  r->headers_out.content_type_lowcase = nullptr;
  r->headers_out.charset =
      str(charset == std::string_view::npos ? "" : type.substr(charset + kCharset.size()));
}

// When to come back: "Retry-After: N", retry-after-ms, and, where that is longer than SDKs wait,
// "x-should-retry: false": they would come at once. `push(name, value)` adds a header; false when
// memory ran out. REQUIRES: seconds > 0.
template <class Push>
bool push_retry(ngx_pool_t* pool, int64_t seconds, const Push& push) noexcept {
  constexpr int64_t kLongestOfSdksSeconds = 120;
  auto* digits = static_cast<char*>(ngx_pnalloc(pool, Text::kMaxDigits + 3));
  if (digits == nullptr) {
    return false;
  }
  Text text(digits);  // of the milliseconds: those of the seconds and three zeros
  const auto size = static_cast<size_t>(text.number(static_cast<uint64_t>(seconds)).at() - digits);
  text.literal("000");
  return push("Retry-After", str({digits, size})) &&
         push("retry-after-ms", str({digits, size + 3})) &&
         (seconds <= kLongestOfSdksSeconds || push("x-should-retry", str("false")));
}
// The same on the answer to a request; what it had been given of these is taken back.
bool push_retry_headers(ngx_http_request_t* r, int64_t seconds) noexcept;

// Answers a request that is still in a phase handler; give the result to Nginx as that handler's
// own. The operator's error_page for the status, if there is one, has the word instead, but not
// instead of a challenge.
ngx_int_t refuse_request(ngx_http_request_t* r, const http::Problem& problem) noexcept;
// The same with the problem's body at hand, or another in its place.
ngx_int_t refuse_request(ngx_http_request_t* r, int status, int64_t retry_after_s, ngx_str_t body,
                         std::string_view type = kProblemType) noexcept;

// Puts a problem in place of the error pages that Nginx itself would send from a Penstock location
// (413, 502 ...).
void install_problem_filters() noexcept;

}  // namespace penstock
