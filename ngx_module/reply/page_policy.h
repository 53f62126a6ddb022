// Page policy: the headers by which a browser is safe with a page of ours: nothing comes in from
// elsewhere, no text becomes script, no type is guessed, and nobody frames it. The policy's one
// script policy, "penstock", makes URLs of the page's own workers.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// Of pages that ask no other host for anything.
inline constexpr std::string_view kOwnPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src "
    "'self'; worker-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types penstock";

// False when memory ran out.
bool push_page_policy(ngx_http_request_t* r, std::string_view policy = kOwnPolicy) noexcept;

}  // namespace penstock
