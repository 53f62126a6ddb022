// What a caller is told of its limits: RateLimit-Policy and RateLimit
// (draft-ietf-httpapi-ratelimit-headers, structured fields) and the x-ratelimit-* set that OpenAI
// clients read.
//
// Shown are the limits of the caller's plan, or the inline ones where there is no plan; and, on a
// refusal, those that refused. What everyone shares (a site's total, say) is not shown to one
// caller without need.
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

// Of a refusal: when to come back, as HTTP has it, and as the OpenAI clients read it.
constexpr size_t kMaxRetryHeaders = 3;
using RetryHeaders = ngx_table_elt_t* [kMaxRetryHeaders];

// A lease comes free when its holder is done, nobody knows when; on average this soon.
int64_t usual_wait_ns(const Bound& bound) noexcept;

constexpr int64_t seconds_up(int64_t ns) noexcept { return (ns + 999'999'999) / 1'000'000'000; }

}  // namespace penstock
