// Waiting: a request whose shared limits must be asked for in Redis, before anything is charged.
#pragma once

#include "ngx_module/lease/lessee.h"

namespace penstock {

// charge_all, of a location that has shared limits. Outcome::unknown: see wait_for_leases.
limit::Outcome charge_shared(ngx_http_request_t* r, Zone& zone, std::span<limit::Charge> charges,
                             const limit::Instant& now) noexcept;

// Whether Redis is away for one of these, and nothing passes without it. REQUIRES: charge_shared
// has decided.
bool is_denied(const Zone& zone, std::span<const limit::Charge> charges) noexcept;

// Suspends the request until Redis has answered, or the zone's timeout has passed; the phases then
// go on behind the handler that asked. Give the result to Nginx as that handler's own.
// REQUIRES: charge_shared said that these are unknown.
ngx_int_t wait_for_leases(ngx_http_request_t* r, Zone& zone,
                          std::span<limit::Charge> charges) noexcept;

}  // namespace penstock
