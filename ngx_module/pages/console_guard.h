// Who may ask the console, beside what its location says, and whose orders it takes (console.h).
#pragma once

#include "ngx_module/conf/conf.h"

namespace penstock {

// NGX_DECLINED: the request may go on; else what the handler is to return. `order`: it changes
// something. `for_programs`: programs need no token.
ngx_int_t guard_console(ngx_http_request_t* r, bool order, bool for_programs) noexcept;

// What PREFIX/session says.
ngx_int_t answer_session(ngx_http_request_t* r) noexcept;

}  // namespace penstock
