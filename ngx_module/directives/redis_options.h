// penstock_zone's redis= and what belongs to it.
#pragma once

#include "ngx_module/conf/conf.h"
#include "ngx_module/conf/sharing.h"

namespace penstock {

// Takes one argument; `known` is whether it is one of these. Refuses what is wrong with it.
char* read_redis_option(ngx_conf_t* cf, size_t i, Sharing& sharing, bool& known) noexcept;

// Once all are read: the zone is shared, if redis= was among them.
char* share_zone(ngx_conf_t* cf, const Sharing& read, Zone& zone) noexcept;

}  // namespace penstock
