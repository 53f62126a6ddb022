// What `error_log … debug` of an Nginx built --with-debug tells of a judgement: the plan, the
// outcome, and what each limit said. Keys are shown by their hashes.
#pragma once

#include "ngx_module/admit/charges.h"

namespace penstock {

void log_judged(ngx_http_request_t* r, Charges& charges, limit::Outcome outcome) noexcept;

}  // namespace penstock
