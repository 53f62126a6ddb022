#include "ngx_module/admit/admit.h"

#include <algorithm>

#include "ngx_module/admit/degrade.h"
#include "ngx_module/admit/delay.h"
#include "ngx_module/admit/quota_word.h"
#include "ngx_module/admit/refuse.h"
#include "ngx_module/request/telemetry.h"

namespace penstock {
namespace {

// What became of the limits of an admitted request.
struct Admitted {
  bool over = false;                  // some are over
  int64_t delay_ns = 0;               // how long it is to be delayed
  const ChargeResult* dry = nullptr;  // what a dry run would have acted upon
};

bool is_over(const ChargeResult& j) noexcept {
  return !j.decision->admit || j.decision->delay_ns > 0;
}

Admitted sum_up(Charges& charges) noexcept {
  Admitted sum;
  for (const ChargeResult& j : charges.results()) {
    if (!is_over(j)) [[likely]] {
      continue;
    }
    sum.over = true;
    if (j.advisory) {
      sum.dry = &j;
    } else {
      sum.delay_ns = std::max(sum.delay_ns, j.decision->delay_ns);
    }
  }
  return sum;
}

void count_admitted(const MainConf& main, Charges& charges, bool over) noexcept {
  if (!over) {
    count_passed(charges.results());
    return;
  }
  for (const ChargeResult& j : charges.results()) {
    const Outcome outcome = !is_over(j)  ? Outcome::kPassed
                            : j.advisory ? outcome_of(j.limit->action, true)
                                         : Outcome::kDelayed;
    count_limit(main, *j.bound->counter, outcome, 0);
  }
}

void give_back(Charges& charges) noexcept {
  limit::Table& table = charges.table();
  limit::refund_all(table, std::span<const limit::Charge>(charges.charges()), instant(table));
}

// Too many wait already: what would be delayed is refused, and told when it need not wait.
ngx_int_t refuse_to_delay(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept {
  give_back(charges);
  for (limit::Charge& charge : charges.charges()) {
    if (charge.decision.delay_ns > 0 && !charge.advisory) {
      charge.decision.admit = false;
      charge.decision.retry_after_ns = charge.decision.delay_ns;
    }
  }
  return refuse_over_limit(r, state, charges);
}

// What an earlier stage did to the request stays said, unless this one did something, too.
void note_outcome(RequestState& state, const Admitted& sum, bool would_refuse) noexcept {
  const bool acted = sum.delay_ns > 0 || state.met.any(MetLimits::kDegraded);
  if (acted || state.outcome == Outcome::kNone || state.outcome == Outcome::kPassed) {
    state.outcome = sum.delay_ns > 0                      ? Outcome::kDelayed
                    : state.met.any(MetLimits::kDegraded) ? Outcome::kDegraded
                    : would_refuse                        ? Outcome::kRejectedDryRun
                    : sum.dry != nullptr                  ? outcome_of(sum.dry->limit->action, true)
                                                          : Outcome::kPassed;
  }
  if (sum.dry != nullptr) {
    state.exceeded = &sum.dry->rule();
  }
  state.admitted = state.outcome;
}

// An operator's error_page has led the refused request to where it is admitted.
void forget_refusal(RequestState& state) noexcept {
  if (is_refused(state.outcome)) {
    state.outcome = Outcome::kNone;
    state.exceeded = nullptr;
    state.retry_after_s = 0;
    take_back(state.retry);
  }
}

}  // namespace

ngx_int_t admit(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept {
  const MainConf& main = *main_conf(r);
  const LocConf& loc = charges.loc();
  limit::Table& table = charges.table();
  forget_refusal(state);
  const Admitted sum = sum_up(charges);
  if (sum.delay_ns > 0 && !may_delay(main)) {
    return refuse_to_delay(r, state, charges);
  }
  count_admitted(main, charges, sum.over);
  tell_of_quotas(r, charges);
  note_judged(state, charges, true);
  state.passes = loc.passes;
  note_outcome(state, sum, charges.would_refuse);
  // Where nothing answers, try_files or an index may lead to other limits, which may refuse.
  const bool receipt =
      loc.passes || loc.later || charges.lasting || sum.delay_ns > 0 || !does_work(r);
  const bool kept =
      receipt && keep(r->pool, state.receipt, table, main, charges.charges(), charges.results());
  if (kept != receipt ||
      !push_rate_headers(r, state.tier, charges.results(), false, state.rate_headers) ||
      (state.met.any(MetLimits::kDegraded) && !push_degraded(r, state, loc, charges.stage()))) {
    if (!kept) {
      give_back(charges);
    }
    give_all_back(state);
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                 "penstock charged %uz counters, to be delayed by %L ns", charges.charges().size(),
                 sum.delay_ns);
  return sum.delay_ns > 0 ? delay_request(r, state, sum.delay_ns) : NGX_DECLINED;
}

void pass_uncharged(RequestState& state, const LocConf& loc, bool would_refuse) noexcept {
  state.passes = loc.passes;
  if (state.outcome == Outcome::kNone) {
    note_outcome(state, {}, would_refuse);
  }
}

}  // namespace penstock
