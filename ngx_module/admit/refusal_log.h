// A line of the error log for a request that a limit refuses, as limit_req has: for operators, and
// for what reads logs and bars addresses. penstock_log_level says at which level.
#pragma once

#include "ngx_module/request/request.h"

namespace penstock {

// `by` names the limit, or the queue, that refused. The key is never shown. Each process writes
// some lines a second at most; those left out are counted in the next.
void log_refusal(ngx_http_request_t* r, const RequestState& state, ngx_uint_t status,
                 std::string_view by) noexcept;

}  // namespace penstock
