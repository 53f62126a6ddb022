// penstock_cost, penstock_image_cost.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

char* read_cost(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_image_cost(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
