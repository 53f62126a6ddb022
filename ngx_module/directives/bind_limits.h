// Limits and the counters that they charge: bound to each other once every tier is known.
#pragma once

#include "ngx_module/conf/conf.h"

namespace penstock {

// The zone's counter of this name, made if there is none. nullptr: memory ran out, or another rule
// has the name (`other`).
Counter* counter_of(ngx_pool_t* pool, Zone& zone, const Rule& rule, const Rule*& other) noexcept;

// Why limits of this kind cannot be shared by hosts, and what to do; nullptr: they can.
const char* cannot_share(const Rule& rule) noexcept;

constexpr char kSharedElsewhere[] =
    "limit \"%V\" is shared by hosts in one place and not in another: give this one a name= of "
    "its own";

// The limit charges the counter. False when memory ran out.
bool bind(ngx_pool_t* pool, Counter& counter, const Limit& limit, Bounds& bounds) noexcept;

// A bucket can tell when its next is due, and so can be waited for.
bool is_bucket(const Rule& rule) noexcept;

// At the end of the configuration.
ngx_int_t bind_limits(ngx_conf_t* cf) noexcept;

}  // namespace penstock
