// penstock_limit.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

char* read_limit(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
