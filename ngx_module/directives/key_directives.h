// penstock_keys and penstock_require_key: who has a key, and where one is wanted.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

char* read_keys(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_require_key(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
