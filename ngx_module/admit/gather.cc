#include "ngx_module/admit/gather.h"

#include <algorithm>

#include "ngx_module/admit/cost.h"
#include "ngx_module/admit/refuse.h"
#include "ngx_module/admit/resolve.h"

namespace penstock {
namespace {

// Whether what hung on the body is told later.
inline bool is_body_to_come(ngx_http_request_t* r) noexcept {
  const RequestState* state = find_state(r);
  return has_body(r) && (state == nullptr || !state->body_read);
}

// What can be told before the body is there: nothing slow is done for a request that is over it.
// A lease is taken only when the body has come, however long its sender takes.
void add_uncosted(const Limit& limit, const limit::Hash128& hash, const Bounds& bounds,
                  bool requests_cost_one, bool of_tier, Charges& charges) noexcept {
  for (const Bound& bound : bounds) {
    const Rule& rule = *bound.counter->rule;
    if (rule.kind == RuleKind::kConcurrency ||
        (rule.unit == Unit::kRequests && requests_cost_one)) {
      charges.add(limit, bound, hash, 1, of_tier);
    }
  }
}

// Adds what a request costs that is reckoned. Results as gather's.
ngx_int_t add_reckoned(ngx_http_request_t* r, const Limit& limit, const limit::Hash128& hash,
                       const Bounds& bounds, bool of_tier, Charges& charges) noexcept {
  RequestState* state = state_of(r);
  if (state == nullptr || (state->body_read && !body_of(r, state->search).readable)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (const Fault fault = reckon(r, *state); !fault.detail.empty()) {
    charges.would_refuse = true;
    return limit.dry_run ? NGX_DECLINED : refuse_fault(r, *state, fault);
  }
  for (const Bound& bound : bounds) {
    const Rule& rule = *bound.counter->rule;
    const auto unit = static_cast<size_t>(rule.unit);
    const uint64_t cost = state->cost[unit];
    // What is only an estimate is no reason to refuse for good.
    const uint64_t most = state->asked[unit] > bound.policy.limit ? cost : bound.policy.limit;
    charges.add(limit, bound, hash, rule.kind == RuleKind::kConcurrency ? 1 : std::min(cost, most),
                of_tier);
  }
  return NGX_DECLINED;
}

// Adds what one limit charges the key. Results as gather's.
ngx_int_t add_bounds(ngx_http_request_t* r, const Limit& limit, const Resolved& found,
                     Charges& charges) noexcept {
  const LocConf& loc = charges.loc();
  const RequestState* state = limit.action == Action::kChallenge ? find_state(r) : nullptr;
  const bool verified = state != nullptr && state->met.has(&limit, MetLimits::kVerified);
  const Bounds& bounds = verified ? limit.verified : *found.bounds;
  const bool of_tier = found.tier != nullptr;
  const bool reckoned = bounds.reckoned || !loc.costs.empty();
  charges.lasting |= bounds.reckoned || bounds.leases;
  if ((reckoned || (bounds.leases && loc.passes)) && is_body_to_come(r)) {
    add_uncosted(limit, found.key, bounds, loc.costs.empty(), of_tier, charges);
    return NGX_AGAIN;
  }
  if (reckoned) {
    return add_reckoned(r, limit, found.key, bounds, of_tier, charges);
  }
  for (const Bound& bound : bounds) {
    charges.add(limit, bound, found.key, 1, of_tier);
  }
  return NGX_DECLINED;
}

// Results as gather's.
ngx_int_t add_limit(ngx_http_request_t* r, const Limit& limit, Charges& charges) noexcept {
  if (limit.by_model && is_body_to_come(r)) {
    return NGX_AGAIN;
  }
  const Resolved found = resolve(r, limit);
  if (found.asked_body && is_body_to_come(r)) {
    return NGX_AGAIN;
  }
  switch (found.kind) {
    case Resolved::Kind::kCounted:
      break;
    case Resolved::Kind::kNobody:
      return NGX_DECLINED;
    case Resolved::Kind::kUnknownTier:
      if (!limit.dry_run) {
        return refuse_unknown_tier(r, limit, found.tier_name);
      }
      tell_of_unknown_tier(r, limit, found.tier_name);
      charges.would_refuse = true;
      return NGX_DECLINED;
    case Resolved::Kind::kFailed:
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (found.tier != nullptr && !limit.dry_run && charges.tier == nullptr) {
    charges.tier = found.tier;
  }
  return add_bounds(r, limit, found, charges);
}

// After an internal redirect a limit is not charged twice. One that has refused, or whose charge
// was given back as the first location failed, is judged again where there is work to be done.
bool is_done_with(const RequestState& state, const Limit& limit, bool works) noexcept {
  return state.met.has(&limit, MetLimits::kDegraded) ||
         state.met.has(&limit, works ? MetLimits::kCharged : MetLimits::kJudged);
}

// Results as gather's.
ngx_int_t add_limits(ngx_http_request_t* r, Charges& charges) noexcept {
  ngx_int_t result = NGX_DECLINED;
  const RequestState* state = find_state(r);
  const bool works = does_work(r);
  for (const Limit* limit : charges.loc().limits) {
    if (limit->stage != charges.stage() ||
        (state != nullptr && is_done_with(*state, *limit, works))) {
      continue;
    }
    const ngx_int_t rc = add_limit(r, *limit, charges);
    if (rc == NGX_AGAIN) {
      result = NGX_AGAIN;
    } else if (rc != NGX_DECLINED) {
      return rc;
    }
  }
  return result;
}

}  // namespace

ngx_int_t gather(ngx_http_request_t* r, Charges& charges) noexcept {
  charges.clear();
  KnownVariables known(r);
  RequestState* asks = nullptr;  // what may ask for what only the body tells, or for its model
  if (charges.loc().degrades || is_body_to_come(r)) {
    asks = state_of(r);
    if (asks == nullptr) {
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    asks->known = &known;
  }
  const ngx_int_t rc = add_limits(r, charges);
  if (asks != nullptr && rc != NGX_DONE) {  // it is gone once it was answered
    asks->known = nullptr;
  }
  return rc;
}

}  // namespace penstock
