// penstock_challenge: what a caller over a limit with action=challenge has to solve.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

char* read_challenge(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
