// What a limit's counter holds for one key, as penstock_quota and penstock_console say it.
#pragma once

#include "ngx_module/conf/conf.h"
#include "ngx_module/reply/page.h"

namespace penstock {

// How a key stands with a counter, without charging it or taking a slot for it. Its reset_ns is 0
// when nothing is counted.
limit::Decision look_at(const Zone& zone, const limit::Policy& policy,
                        const limit::Hash128& place) noexcept;

// A unit's amount in JSON: GPU time in seconds, whatever is counted.
void write_amount(Page& page, const Rule& rule, uint64_t counted) noexcept;

// Writes how much of the limit is used: `,"used":3,"remaining":47,"reset_seconds":41000`. Used and
// remaining add up to what may come at once: the burst, or all of a window.
void write_standing(Page& page, const Rule& rule, const limit::Policy& policy,
                    const limit::Decision& now) noexcept;

}  // namespace penstock
