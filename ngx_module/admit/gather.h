// Gather: every limit of a place, resolved, makes its charges.
#pragma once

#include "ngx_module/admit/charges.h"

namespace penstock {

// Makes the charges of all limits of one stage that can be told now. NGX_DECLINED: these are all.
// NGX_AGAIN: some depend on the body, which is still to come. Else the request was refused, and the
// handler returns this.
ngx_int_t gather(ngx_http_request_t* r, Charges& charges) noexcept;

}  // namespace penstock
