// Delay: a request that came too early waits in Nginx until its time.
//
// Its charge is made when it comes, so its place in the row is its own; it holds a timer and
// nothing else. How many wait in one worker is bounded (penstock_max_delayed).
#pragma once

#include "ngx_module/request/request.h"

namespace penstock {

// Whether one more may wait.
bool may_delay(const MainConf& main) noexcept;

// Suspends the request for so long; the phases then go on behind the handler that asked. Give the
// result to Nginx as that handler's own. A caller that leaves meanwhile gets its charge back.
ngx_int_t delay_request(ngx_http_request_t* r, RequestState& state, int64_t delay_ns) noexcept;

}  // namespace penstock
