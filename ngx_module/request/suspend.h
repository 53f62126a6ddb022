// Suspend: a request stops in a phase handler, and goes on from there when something has happened.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// `on_event` is called by the connection's write event: a timer, or one that was posted. Meanwhile
// the caller's leaving is noticed. The phase handler then returns NGX_AGAIN. False: it failed.
bool suspend_phases(ngx_http_request_t* r, ngx_http_event_handler_pt on_event) noexcept;

// For `on_event`, both of which may end the request.
// Something else has woken it.
void stay_suspended(ngx_http_request_t* r) noexcept;
// The phases go on, behind the handler that suspended it.
void resume_phases(ngx_http_request_t* r) noexcept;

}  // namespace penstock
