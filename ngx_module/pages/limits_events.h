// `event: limits` in an owner's stream (GET /jobs/events): what GET /quota would say, when it has
// changed, at most each 5 s.
//
// penstockd writes the stream, and knows no limit. So the module adds these events behind those
// that pass, and behind signs of life, which come each 15 s at least. The limits are those that
// the penstock_quota of the same server{} tells of; without one there are none of these events.
// They are found once, at the first look; each look after it reads their counters, and allocates
// nothing.
#pragma once

#include "ngx_module/conf/conf.h"

namespace penstock {

// Each penstock_jobs gets the limits of its server's penstock_quota. After bind_quotas().
void bind_limits_events(ngx_conf_t* cf) noexcept;

}  // namespace penstock
