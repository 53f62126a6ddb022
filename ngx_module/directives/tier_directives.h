// penstock_tier.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

char* read_tier(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

// At the end of the configuration: what makes no sense in a plan is warned of, with the remedy; all
// that its refusals say is ready.
ngx_int_t finish_tiers(ngx_conf_t* cf) noexcept;

}  // namespace penstock
