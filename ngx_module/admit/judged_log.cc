#include "ngx_module/admit/judged_log.h"

#include "shared/base/clock.h"

namespace penstock {

void log_judged([[maybe_unused]] ngx_http_request_t* r, [[maybe_unused]] Charges& charges,
                [[maybe_unused]] limit::Outcome outcome) noexcept {
#if (NGX_DEBUG)
  if ((r->connection->log->log_level & NGX_LOG_DEBUG_HTTP) == 0) {
    return;
  }
  static constexpr const char* kSaid[] = {"admitted", "refused", "never admissible", "zone full",
                                          "Redis is to be asked"};
  const ngx_str_t plan = charges.tier == nullptr ? str("-") : charges.tier->name;
  ngx_log_debug4(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                 "penstock judged %uz counters of plan \"%V\" at stage %d: %s",
                 charges.charges().size(), &plan, static_cast<int>(charges.stage()),
                 kSaid[static_cast<size_t>(outcome)]);
  for (size_t i = 0; i < charges.charges().size(); ++i) {
    const limit::Charge& charge = charges.charges()[i];
    const limit::Decision& said = charge.decision;
    const int64_t wait_ms =
        said.retry_after_ns < 0 ? said.retry_after_ns : said.retry_after_ns / kNsPerMs;
    ngx_log_debug7(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "penstock limit \"%V\"%s, key %016xL: %s %uL units, %uL left, again in %L ms",
                   &charges.results()[i].rule().name, charge.advisory ? " (dry run)" : "",
                   charge.hash.hi, said.admit ? "has room for" : "refuses", charge.cost,
                   said.remaining, wait_ms);
  }
#endif
}

}  // namespace penstock
