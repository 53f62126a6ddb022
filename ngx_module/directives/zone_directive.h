// penstock_zone.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

char* read_zone(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
