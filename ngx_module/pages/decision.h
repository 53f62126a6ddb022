// penstock_decide and penstock_settle: limits for a service that stands elsewhere.
//
//   the service          penstock_decide                          penstock_settle
//     │ ── caller, cost ──▶ its location's limits judge, charge
//     │ ◀── 429, or 200 and Penstock-Receipt
//     │ ── the receipt ───────────────────────────────────────────▶ PUT: leases are kept for 10 s
//     more │ ── the receipt, and what was used ─────────────────────────▶ POST: settled, leases
//     given back │ ── the receipt ───────────────────────────────────────────▶ DELETE: as if it had
//     not been
//
// Nothing is kept here: a receipt says what was charged, and is signed. A service that dies leaves
// nothing: leases lapse, and what it had reserved stands.
//
//   receipt = base64url: 8 bytes at random, the charges (shared/wire/receipt.h), 16 bytes of
//             HMAC-SHA-256 over both under a secret of the first zone's
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// Read the directives.
char* read_decide(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_settle(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
