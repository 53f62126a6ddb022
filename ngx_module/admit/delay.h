// Delay: a request that came too early waits in Nginx until its time.
//
// It is charged when it comes, so nobody takes its place. It holds a timer and nothing else. How
// many may wait in one worker is bounded (penstock_max_delayed).
#pragma once

#include "ngx_module/request/request.h"

namespace penstock {

// Whether one more may wait.
bool may_delay(const MainConf& main) noexcept;

// Suspends the request for `delay_ns`. Then the phases go on behind the handler that called this;
// that handler returns what this returns. A caller that leaves meanwhile gets its charge back.
ngx_int_t delay_request(ngx_http_request_t* r, RequestState& state, int64_t delay_ns) noexcept;

}  // namespace penstock
