// penstock_pass: hands a request over to penstockd and streams the answer back, on Nginx's own
// upstream machinery.
#pragma once

#include "ngx_module/conf.h"

namespace penstock {

// Content handler.
ngx_int_t pass_request(ngx_http_request_t* r) noexcept;

}  // namespace penstock
