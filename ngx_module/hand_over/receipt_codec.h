// A request's receipt as bytes, for the job that takes it over (shared/wire/receipt.h).
#pragma once

#include "ngx_module/conf/conf.h"
#include "ngx_module/request/receipt.h"
#include "shared/base/clock.h"

namespace penstock {

// Empty when nothing was charged, or memory ran out. The charges of one place always fit. Of a
// request that was led on to places with other limits, the latest charges that fit are taken.
std::string_view encode_receipt(ngx_pool_t* pool, const MainConf& main,
                                const Receipt& receipt) noexcept;

// Tells one table's places from another's: its secret, by a one-way function.
uint64_t table_of(const Zone& zone) noexcept;

// A receipt that was handed over, in memory of its own (ngx_alloc) until forget_receipt().
struct HeldReceipt;
// Which of its charges: those that were made here; of these, those without a seal; all with one; of
// these, those that were made elsewhere, or before Nginx was started anew.
enum class Part : uint8_t { kOwn, kUnsealed, kSealed, kOthers };
// A charge is left out if its rule is not in the configuration any more, or if it was made in
// another table: Nginx was restarted or the zone resized, so what was counted is gone. One of
// kSealed and kOthers is left out if it was charged in another Redis or by other terms than the
// rule's, which is said in the log, or if this host has decoded it before. nullptr when nothing is
// left, or memory ran out.
HeldReceipt* decode_receipt(const MainConf& main, std::string_view bytes, Part part,
                            ngx_log_t* log) noexcept;
Receipt& receipt_of(HeldReceipt& held) noexcept;
// Its leases are renewed with the others of this process, and taken anew if they had lapsed.
void hold_leases(HeldReceipt& held) noexcept;
// The mark of what is settled once, told by its number from `from`: a bucket of its own in one
// table that admits once, and is known for so long.
constexpr int64_t kMarkNs = 3660 * kNsPerSec;
// Notes it. admitted: nobody has yet; refused: it is settled; table_full: it cannot be noted now.
limit::Outcome mark_settled(limit::Table& table, std::string_view from, uint64_t number,
                            std::string_view bytes) noexcept;
bool is_settled(const limit::Table& table, std::string_view from, uint64_t number,
                std::string_view bytes) noexcept;
// Its leases are renewed, as renew() does, by whoever may hold older copies of the receipt, too:
// each lease once in its window.
void renew_once(Receipt& receipt, std::string_view from, uint64_t number) noexcept;
// REQUIRES: its leases were released.
void forget_receipt(HeldReceipt* held) noexcept;

}  // namespace penstock
