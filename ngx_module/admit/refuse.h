// Refuse: what becomes of a request that is not let in, what its caller is told, and when to come
// back. Each gives back what the request was charged before, and returns what the phase handler is
// to return.
#pragma once

#include "ngx_module/admit/charges.h"
#include "ngx_module/admit/cost.h"
#include "ngx_module/admit/status_source.h"
#include "ngx_module/reply/reply.h"
#include "ngx_module/request/request.h"
#include "shared/http/problem.h"

namespace penstock {

// 429 by the limit to wait for longest, 403 where all that refuse ask for a challenge, or 400 where
// no wait makes room. REQUIRES: some charge was
// refused.
ngx_int_t refuse_over_limit(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept;
// The same, to be said by who calls this. False when memory ran out.
struct OverLimit {
  int status = 0;
  int64_t retry_after_s = 0;  // 0: no wait helps
  ngx_str_t body{};           // a problem, or a page with a challenge
  std::string_view type = kProblemType;
};
bool tell_over_limit(ngx_http_request_t* r, RequestState& state, Charges& charges,
                     OverLimit& told) noexcept;
// 503: all slots of the zone are in use.
ngx_int_t refuse_full_table(ngx_http_request_t* r, RequestState& state) noexcept;
// 503: Redis is away, and its zone says deny.
ngx_int_t refuse_without_redis(ngx_http_request_t* r, RequestState& state) noexcept;
// 503: too much is asked of a provider of challenges at once.
ngx_int_t refuse_without_check(ngx_http_request_t* r, RequestState& state) noexcept;
// 503: the queue would not take it.
ngx_int_t refuse_busy(ngx_http_request_t* r, RequestState& state, const QueueRefusal& why) noexcept;
// 400: what it costs cannot be told.
ngx_int_t refuse_fault(ngx_http_request_t* r, RequestState& state, const Fault& fault) noexcept;
// 415: nobody here undoes an encoding; a body that has one would be limited and routed unseen.
ngx_int_t refuse_encoded(ngx_http_request_t* r, RequestState& state,
                         std::string_view encoding) noexcept;
// 413: no frame holds such a body.
ngx_int_t refuse_too_large(RequestState& state) noexcept;
// 403: the tier's variable yields none of those defined.
ngx_int_t refuse_unknown_tier(ngx_http_request_t* r, const Limit& limit,
                              std::string_view name) noexcept;

// The message of the last one, for a page. It notes the refusal in the error log and in the
// request's outcome.
http::Problem unknown_tier(ngx_http_request_t* r, const Limit& limit,
                           std::string_view name) noexcept;
// For the error log alone.
void tell_of_unknown_tier(ngx_http_request_t* r, const Limit& limit,
                          std::string_view name) noexcept;

}  // namespace penstock
