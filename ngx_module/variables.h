// $penstock_*: what was decided, for logs, maps and headers.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// Called before the configuration is read.
ngx_int_t add_variables(ngx_conf_t* cf) noexcept;

}  // namespace penstock
