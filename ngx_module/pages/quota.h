// penstock_quota: a caller asks what its limits are and what is left of them.
//
//   {"tier":"free",
//    "limits":[{"name":"free-rate","unit":"requests","limit":5,"amount":10,"period_seconds":60,
//               "used":1,"remaining":4,"reset_seconds":6},
//              {"name":"free-quota-d","unit":"requests","limit":50,"used":3,"remaining":47,
//               "reset_seconds":41000}],
//    "concurrency":{"limit":1,"in_use":0},
//    "documentation":"https://example.com/plans"}
//
// `limit` is what may come at once: a bucket's burst, all of a window. A rate also says what it was
// written as. `concurrency` is the tightest of the caller's, null if there is none; `documentation`
// is there if the plan has some.
//
// It tells of the limits that stand in the location itself. If none of these is the caller's own,
// it tells of those that the location inherits and those of its whole server{}: the rules of the
// caller's plan, and inline limits by a key of the caller's. It does not tell of limits that
// everyone shares, and a limit that depends on a body is not known here. Nothing is charged, and no
// limit refuses it.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

ngx_int_t tell_quota(ngx_http_request_t* r) noexcept;

// Reads the directive.
char* read_quota(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

// Finds the limits that each penstock_quota tells of; all are known now.
ngx_int_t bind_quotas(ngx_conf_t* cf) noexcept;

}  // namespace penstock
