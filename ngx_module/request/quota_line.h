// Quota lines: over which penstockd is told that a key has used much of a quota, for its operator's
// hooks (`warn=` on a quota).
//
// Each worker process opens one, with the first penstockd that is there, when it has something to
// tell. Nothing is answered, and nobody waits for it: what cannot be sent is in the log alone.
#pragma once

#include "ngx_module/conf/conf.h"

namespace penstock {

// A penstockd that may be told. False when memory ran out.
bool add_quota_line(ngx_pool_t* pool, MainConf& main, std::string_view socket) noexcept;

void tell_quota(const MainConf& main, const wire::QuotaNotice& notice) noexcept;

}  // namespace penstock
