#include "ngx_module/pages/limit_report.h"

#include <algorithm>

#include "ngx_module/request/rate_headers.h"
#include "ngx_module/request/receipt.h"

namespace penstock {

limit::Decision look_at(const Zone& zone, const limit::Policy& policy,
                        const limit::Hash128& place) noexcept {
  limit::Charge charge(&policy, place, 0);  // cost 0 is never refused
  limit::peek_all(*zone.table, std::span<limit::Charge>(&charge, 1), instant(*zone.table));
  return charge.decision;
}

void write_amount(Page& page, const Rule& rule, uint64_t counted) noexcept {
  if (rule.scale() == 1000) {
    page.decimal(counted);
  } else {
    page.number(counted);
  }
}

void write_standing(Page& page, const Rule& rule, const limit::Policy& policy,
                    const limit::Decision& now) noexcept {
  const uint64_t remaining = std::min(now.remaining, policy.limit);
  page.raw(R"(,"used":)");
  write_amount(page, rule, policy.limit - remaining);
  page.raw(R"(,"remaining":)");
  write_amount(page, rule, remaining);
  page.raw(R"(,"reset_seconds":)").number(static_cast<uint64_t>(seconds_up(now.reset_ns)));
}

}  // namespace penstock
