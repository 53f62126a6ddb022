// What a caller is told of its limits: RateLimit-Policy and RateLimit
// (draft-ietf-httpapi-ratelimit-headers, structured fields) and the x-ratelimit-* set that OpenAI
// clients read.
//
// They show the limits of the caller's plan, or the inline ones if there is no plan. A refusal also
// shows the limits that refused. A limit that everyone shares (a site's total, say) is not shown
// without need.
#pragma once

#include <span>

#include "ngx_module/request/charge_result.h"

namespace penstock {

// The headers of one stage; a later stage's take their place.
constexpr size_t kMaxRateHeaders = 8;
using RateHeaders = ngx_table_elt_t* [kMaxRateHeaders];

// Adds the headers, and takes back those in `pushed`. `tier` is the caller's plan, nullptr if it
// has none. False when memory ran out.
bool push_rate_headers(ngx_http_request_t* r, const Tier* tier,
                       std::span<const ChargeResult> results, bool refused,
                       RateHeaders& pushed) noexcept;

// The headers of a refusal that say when to come back: HTTP's, and those that the OpenAI clients
// read.
constexpr size_t kMaxRetryHeaders = 3;
using RetryHeaders = ngx_table_elt_t* [kMaxRetryHeaders];

// A lease comes free when its holder is done, and nobody knows when. This is the average.
int64_t usual_wait_ns(const Bound& bound) noexcept;

constexpr int64_t seconds_up(int64_t ns) noexcept { return (ns + 999'999'999) / 1'000'000'000; }

}  // namespace penstock
