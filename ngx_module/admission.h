// Admission: every limit on a request judged together, before anything is handed over.
#pragma once

#include "ngx_module/request.h"

namespace penstock {

// Handler of the preaccess phase.
ngx_int_t judge_request(ngx_http_request_t* r) noexcept;

}  // namespace penstock
