// The shared memory that telemetry counts in: one zone for all of it, offenders | estimates |
// minutes | counters. It is found again by every reload whose configuration asks for the same size,
// and there are few sizes.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// Makes the shared memory; at the end of the configuration, when all tiers and limits are known.
ngx_int_t add_telemetry(ngx_conf_t* cf) noexcept;

// The cycle is accepted: from here on it counts. Called in the master, before workers start; until
// then nothing that running workers count is touched.
ngx_int_t begin_counting(ngx_cycle_t* cycle) noexcept;

}  // namespace penstock
