// Challenge page: what a browser gets in place of what it asked for. Words are put in by its
// script, in the reader's language; what that needs is in it as data, which is no script for a
// browser.
#pragma once

#include "ngx_module/conf/conf.h"

namespace penstock {

// A page that solves a proof of work by itself (ui/challenge.js). data is nullptr when memory ran
// out.
ngx_str_t write_page(ngx_pool_t* pool, int64_t retry_after_s, std::string_view challenge) noexcept;

// A page with a provider's widget (ui/provider.js), whose form brings its token, and for whom the
// page was, to penstock_verify.
ngx_str_t write_page(ngx_pool_t* pool, int64_t retry_after_s, const ChallengeProvider& provider,
                     std::string_view ticket) noexcept;

}  // namespace penstock
