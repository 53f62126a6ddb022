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

// Whether Redis can be asked.
bool hears_redis(const Zone& zone) noexcept;

// Has Redis tell how these counters of a page's zone stand, once a request: NGX_DONE, return it and
// be called again; NGX_OK, it has told, or is away. REQUIRES: zone.sharing.
struct Asked {
  const limit::Policy* policy;
  limit::Hash128 key;
};
ngx_int_t wait_to_hear(ngx_http_request_t* r, Zone& zone, std::span<const Asked> counters) noexcept;

}  // namespace penstock
