// A request's receipt as bytes, for the job that takes it over (shared/wire/receipt.h).
#pragma once

#include "ngx_module/conf/conf.h"
#include "ngx_module/request/receipt.h"

namespace penstock {

// Empty when nothing was charged, or memory ran out. What one place's limits charge fits; of a
// request that was led on to places with yet other limits, the latest charges that fit.
std::string_view encode_receipt(ngx_pool_t* pool, const MainConf& main,
                                const Receipt& receipt) noexcept;

// A receipt that was handed over, in memory of its own (ngx_alloc) until forget_receipt().
struct HeldReceipt;
// What is not in the configuration any more, or was charged in another table (Nginx was restarted,
// the zone resized: what it counted is gone), is left out. nullptr when nothing is left, or memory
// ran out.
HeldReceipt* decode_receipt(const MainConf& main, std::string_view bytes, ngx_log_t* log) noexcept;
Receipt& receipt_of(HeldReceipt& held) noexcept;
// Its leases are renewed with the others of this process from now on, and taken anew if they had
// lapsed.
void hold_leases(HeldReceipt& held) noexcept;
// REQUIRES: its leases were released.
void forget_receipt(HeldReceipt* held) noexcept;

}  // namespace penstock
