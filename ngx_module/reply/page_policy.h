// Page policy: the headers by which a browser is safe with a page of ours: nothing comes in from
// elsewhere, no text becomes script, no type is guessed, and nobody frames it. The policy's one
// script policy, "penstock", makes URLs of the page's own workers.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// False when memory ran out.
bool push_page_policy(ngx_http_request_t* r) noexcept;

}  // namespace penstock
