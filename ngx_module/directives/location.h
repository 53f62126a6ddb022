// What a location has of all our directives: as it begins, and as it inherits from further out.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

void* create_loc_conf(ngx_conf_t* cf) noexcept;
char* merge_loc_conf(ngx_conf_t* cf, void* parent, void* child) noexcept;

}  // namespace penstock
