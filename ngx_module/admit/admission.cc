#include "ngx_module/admit/admission.h"

#include <algorithm>

#include "ngx_module/admit/admit.h"
#include "ngx_module/admit/cost.h"
#include "ngx_module/admit/degrade.h"
#include "ngx_module/admit/gather.h"
#include "ngx_module/admit/job_headers.h"
#include "ngx_module/admit/judged_log.h"
#include "ngx_module/admit/prove.h"
#include "ngx_module/admit/refuse.h"
#include "ngx_module/admit/status_source.h"
#include "ngx_module/lease/waiting.h"
#include "ngx_module/request/telemetry.h"

namespace penstock {
namespace {

// Read from the top: each calls those below it.
ngx_int_t judge(ngx_http_request_t* r, const LocConf& loc, Stage stage) noexcept;
ngx_int_t charge(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept;
ngx_int_t read_body_then_judge(ngx_http_request_t* r, RequestState& state,
                               Charges& charges) noexcept;
bool is_over_some(ngx_http_request_t* r, const RequestState& state, Charges& charges) noexcept;
ngx_int_t prove_or_refuse(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept;

// It is another request now: degraded, or its caller has shown a pass.
constexpr ngx_int_t kAnew = NGX_MAX_INT_T_VALUE;

}  // namespace

ngx_int_t judge_before_access(ngx_http_request_t* r) noexcept {
  const LocConf& loc = *loc_conf(r);
  if (r != r->main || (loc.limits.empty() && !loc.passes)) {
    return NGX_DECLINED;
  }
  return judge(r, loc, Stage::kPreaccess);
}

ngx_int_t judge_after_access(ngx_http_request_t* r) noexcept {
  const LocConf& loc = *loc_conf(r);
  return r == r->main && loc.later ? judge(r, loc, Stage::kAccess) : NGX_DECLINED;
}

ngx_int_t count_outcome(ngx_http_request_t* r) noexcept {
  if (const RequestState* state = find_state(r);
      state != nullptr && state->outcome != Outcome::kNone) {
    count_request(*main_conf(r), state->tier, state->outcome);
  }
  return NGX_OK;
}

namespace {

ngx_int_t judge(ngx_http_request_t* r, const LocConf& loc, Stage stage) noexcept {
  RequestState* state = find_state(r);
  if (state != nullptr && state->judged_in[static_cast<size_t>(stage)] == &loc) {
    return NGX_DECLINED;  // it goes on: its body has come, or its time
  }
  if (loc.passes && !loc.asks && has_body(r)) {
    if (const std::string_view encoding = encoding_of(r); !encoding.empty()) {
      state = state_of(r);
      return state == nullptr ? NGX_HTTP_INTERNAL_SERVER_ERROR
                              : refuse_encoded(r, *state, encoding);
    }
  }
  if (state != nullptr && std::ranges::any_of(loc.limits, [](const Limit* limit) noexcept {
        return !limit->dry_run;
      })) {
    if (const Fault fault = fault_of_body(r, *state); !fault.detail.empty()) {
      return refuse_fault(r, *state, fault);
    }
  }
  QueueRefusal why;
  const bool busy = stage == Stage::kPreaccess && loc.passes && r->method == NGX_HTTP_POST &&
                    queue_refuses(loc, why) && !may_not_wait(r) &&
                    !(loc.earlier_if_busy == 1 && may_be_earlier(r)) &&
                    !(why.may_promise && asks_for_promise(r));
  Charges charges(loc, stage);
  for (;;) {
    const ngx_int_t rc = gather(r, charges);
    if (rc != NGX_DECLINED && rc != NGX_AGAIN) {
      return rc;
    }
    // Made only now: the counters' memory arrives meanwhile.
    state = state_of(r);
    if (state == nullptr) {
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    state->tier = charges.tier == nullptr ? state->tier : charges.tier;
    // Whoever is over a limit of its own is told that, even if the queue is busy, and takes no
    // place among those who are told when there is room.
    const ngx_int_t done = busy              ? is_over_some(r, *state, charges)
                                                   ? prove_or_refuse(r, *state, charges)
                                                   : refuse_busy(r, *state, why)
                                        : rc == NGX_AGAIN ? read_body_then_judge(r, *state, charges)
                                             : charge(r, *state, charges);
    if (done != kAnew) {
      return done;
    }
  }
}

ngx_int_t charge(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept {
  static unsigned turn = 0;
  if (charges.empty() && state.met.any(MetLimits::kDegraded) && !charges.loc().limits.empty()) {
    return admit(r, state, charges);  // what it was made less for is all there was
  }
  if (charges.empty()) {
    pass_uncharged(state, charges.loc(), charges.would_refuse);
    return NGX_DECLINED;
  }
  limit::Table& table = charges.table();
  const limit::Instant now = instant(table);
  const limit::Outcome outcome = charges.loc().shared
                                     ? charge_shared(r, charges.zone(), charges.charges(), now)
                                     : limit::charge_all(table, charges.charges(), now);
  if (++turn % kSampled == 0) {
    observe_decision(*main_conf(r), instant(table).steady_ns - now.steady_ns);
  }
  log_judged(r, charges, outcome);
  const bool degrades = charges.loc().degrades;
  switch (outcome) {
    case limit::Outcome::admitted:
      return admit(r, state, charges);
    case limit::Outcome::refused:
      if (charges.loc().shared && is_denied(charges.zone(), charges.charges())) {
        return refuse_without_redis(r, state);
      }
      [[fallthrough]];
    case limit::Outcome::never_admissible:
      if (degrades && hangs_on_model(r, state, charges.results())) {
        return read_body_then_judge(r, state, charges);
      }
      return degrades && degrade(r, state, charges) ? kAnew : prove_or_refuse(r, state, charges);
    case limit::Outcome::unknown:
      return wait_for_leases(r, charges.zone(), charges.charges());
    case limit::Outcome::table_full:
      break;
  }
  return refuse_full_table(r, state);
}

// The body is here: the phases go on with the handler that asked for it.
void on_body(ngx_http_request_t* r) noexcept {
  RequestState* state = find_state(r);
  if (state != nullptr) {
    state->body_read = true;
  }
  r->preserve_body = 1;
  r->write_event_handler = ngx_http_core_run_phases;
  ngx_http_core_run_phases(r);
}

// Some key or cost hangs on the body. What can be judged without it is judged first, so that a
// flood of large bodies is refused by their headers alone.
ngx_int_t read_body_then_judge(ngx_http_request_t* r, RequestState& state,
                               Charges& charges) noexcept {
  if (is_over_some(r, state, charges)) {
    return prove_or_refuse(r, state, charges);
  }
  if (const std::string_view encoding = encoding_of(r); !encoding.empty()) {
    return refuse_encoded(r, state, encoding);
  }
  if (charges.loc().passes && r->headers_in.content_length_n > kMaxBodyBytes) {
    return refuse_too_large(state);
  }
  const ngx_int_t rc = ngx_http_read_client_request_body(r, on_body);
  if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
    return rc;
  }
  ngx_http_finalize_request(r, NGX_DONE);
  return NGX_DONE;
}

// Whoever has a pass goes on under a second limit. REQUIRES: some charge was refused.
ngx_int_t prove_or_refuse(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept {
  if (charges.loc().challenges) {
    switch (prove(r, state, charges.results())) {
      case Answered::kRight:
        return kAnew;
      case Answered::kNoRoom:
        return refuse_full_table(r, state);
      case Answered::kAsked:
        return NGX_AGAIN;
      case Answered::kBusy:
        return refuse_without_check(r, state);
      case Answered::kWrong:
        break;
    }
  }
  return refuse_over_limit(r, state, charges);
}

// Whether it is over a limit that can be told of now, and no lesser request will do.
bool is_over_some(ngx_http_request_t* r, const RequestState& state, Charges& charges) noexcept {
  if (charges.empty()) {
    return false;
  }
  limit::Table& table = charges.table();
  return limit::peek_all(table, charges.charges(), instant(table)) == limit::Outcome::refused &&
         !may_degrade(r, state, charges.results());
}

}  // namespace
}  // namespace penstock
