// penstock_sign_in: where a browser signs in with a key that was typed once, and out.
//
//   POST    with the key as Authorization: Bearer KEY: the cookie by which the key is known from
//           then on (keys/known_key.h), and whose it is; 401 if it is not known
//   GET     whose the key is: {"owner":"team-a","tier":"pro","key":"9f86d081884c"}; each null
//   DELETE  takes the cookie away
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

char* read_sign_in(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
