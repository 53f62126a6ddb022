// Which penstockds a location goes by: known once all upstreams are.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// Finds the status pages of every upstream that is passed to, or told of.
ngx_int_t bind_sources(ngx_conf_t* cf) noexcept;

}  // namespace penstock
