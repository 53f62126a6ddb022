// A zone's shared memory: one counter table for all Nginx workers, kept across reloads.
#pragma once

#include "ngx_module/conf/conf.h"

namespace penstock {

// Called by Nginx in the master, before workers start, with the previous cycle's Zone in `previous`
// when the same memory is used again. shm->data is the Zone.
ngx_int_t init_zone(ngx_shm_zone_t* shm, void* previous) noexcept;

// The cycle is accepted: what its limits say is in force from here on (shared/limit/terms.h).
// Called in the master, before workers start.
ngx_int_t begin_terms(ngx_cycle_t* cycle) noexcept;

}  // namespace penstock
