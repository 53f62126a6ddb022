// penstock_pass: hands a request over to penstockd and streams the answer back, on Nginx's own
// upstream machinery.
#pragma once

#include "ngx_module/conf.h"

namespace penstock {

// A frame says its length in 32 bits: no body over this can be handed over.
constexpr off_t kMaxBodyBytes = UINT32_MAX - (1 << 20);

// Content handler.
ngx_int_t pass_request(ngx_http_request_t* r) noexcept;

}  // namespace penstock
