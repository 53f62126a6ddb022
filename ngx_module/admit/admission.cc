#include "ngx_module/admit/admission.h"

#include <algorithm>

#include "ngx_module/admit/charges.h"
#include "ngx_module/admit/cost.h"
#include "ngx_module/admit/degrade.h"
#include "ngx_module/admit/delay.h"
#include "ngx_module/admit/job_headers.h"
#include "ngx_module/admit/known_variables.h"
#include "ngx_module/admit/refusal_log.h"
#include "ngx_module/admit/status_source.h"
#include "ngx_module/hand_over/pass.h"
#include "ngx_module/reply/reply.h"
#include "ngx_module/request/telemetry.h"
#include "shared/base/clock.h"

namespace penstock {
namespace {

constexpr size_t kSentenceBytes = 512;  // print() in rule.cc makes none longer

limit::Table* table_of(const LocConf& loc) noexcept {
  return loc.limits.empty() ? nullptr : &*loc.limits[0]->zone->table;
}

// What an earlier stage has charged and said is given back, as if it had not been.
void undo_earlier(RequestState& state) noexcept {
  give_all_back(state);
  take_back(state.degraded_header);
  take_back(state.rate_headers);
}

ngx_int_t refuse_uncounted(ngx_http_request_t* r, RequestState& state,
                           const Fault& fault) noexcept {
  undo_earlier(state);
  state.verdict = Verdict::kRejected;
  return refuse_request(
      r, {.status = 400, .detail = fault.detail, .code = "invalid_request", .param = fault.param});
}

// Nobody here undoes an encoding: a body that has one would be limited and routed unseen.
ngx_int_t refuse_encoded(ngx_http_request_t* r, RequestState& state,
                         std::string_view encoding) noexcept {
  undo_earlier(state);
  state.verdict = Verdict::kRejected;
  ngx_str_t named = str(is_name(encoding) ? encoding : "(not a name)");
  if (push_header(r, "Accept-Encoding", str("identity")) == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const ngx_str_t detail = print(
      r->pool, "The Content-Encoding \"%V\" is not read here: send the body as it is.", &named);
  return refuse_request(r, {.status = 415, .detail = view(detail), .code = "unsupported_encoding"});
}

// Whether a variable was asked for that only the body tells, and the body is still to come.
bool hangs_on_body(ngx_http_request_t* r) noexcept {
  const RequestState* state = find_state(r);
  return state != nullptr && state->body_wanted && body_to_come(r, *state);
}

limit::Hash128 hash_of(const Limit& limit, std::string_view key) noexcept {
  return limit.key.kind == Value::Kind::kConstant
             ? limit.constant_hash
             : limit::siphash13_128(limit.zone->key_secret, key);
}

bool is_body_to_come(ngx_http_request_t* r) noexcept {
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

// Adds what a request costs that is reckoned. Results as add_limit's.
ngx_int_t add_reckoned(ngx_http_request_t* r, const Limit& limit, const limit::Hash128& hash,
                       const Bounds& bounds, bool of_tier, Charges& charges) noexcept {
  RequestState* state = state_of(r);
  if (state == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (const Fault fault = reckon(r, *state); !fault.detail.empty()) {
    charges.would_refuse = true;
    return limit.dry_run ? NGX_DECLINED : refuse_uncounted(r, *state, fault);
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

// Adds what a key is charged under some counters. Results as add_limit's.
ngx_int_t add_bounds(ngx_http_request_t* r, const Limit& limit, std::string_view key,
                     const Bounds& bounds, bool of_tier, Charges& charges) noexcept {
  const LocConf& loc = *loc_conf(r);
  const bool reckoned = bounds.reckoned || !loc.costs.empty();
  const limit::Hash128 hash = hash_of(limit, key);
  charges.lasting |= bounds.reckoned || bounds.leases;
  if ((reckoned || (bounds.leases && loc.passes)) && is_body_to_come(r)) {
    add_uncosted(limit, hash, bounds, loc.costs.empty(), of_tier, charges);
    return NGX_AGAIN;
  }
  if (reckoned) {
    return add_reckoned(r, limit, hash, bounds, of_tier, charges);
  }
  for (const Bound& bound : bounds) {
    charges.add(limit, bound, hash, 1, of_tier);
  }
  return NGX_DECLINED;
}

// Each worker process says it once a minute. False: it has said it.
bool may_say(time_t& last_said) noexcept {
  const bool due = ngx_time() - last_said >= 60;
  last_said = due ? ngx_time() : last_said;
  return due;
}

void tell_of_unknown_tier(ngx_http_request_t* r, const Limit& limit,
                          std::string_view name) noexcept {
  static time_t last_said = 0;
  if (!may_say(last_said)) {
    return;
  }
  // What is no name may be anything, a credential or a forged line.
  ngx_str_t text = str(is_name(name) ? name : name.empty() ? "(empty)" : "(not a name)");
  ngx_str_t file = limit.file;
  ngx_log_error(
      NGX_LOG_ERR, r->connection->log, 0,
      "unknown penstock tier \"%V\" for the limit in %V:%ui: add a penstock_tier block for "
      "it, or mend the variable; one that auth_request sets is known at stage=access",
      &text, &file, limit.line);
}

// Adds what one penstock_limit charges. NGX_DECLINED: go on; NGX_AGAIN: this one hangs on the body,
// which is still to come; else that is the handler's result.
ngx_int_t add_limit(ngx_http_request_t* r, const Limit& limit, Charges& charges) noexcept {
  const bool of_tier = limit.tier.kind != Value::Kind::kNone;
  std::string_view key;
  std::string_view name;
  if (RequestState* before = find_state(r); before != nullptr) {
    before->body_wanted = false;
  }
  if (!limit.key.get(r, key) || (of_tier && !limit.tier.get(r, name))) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const RequestState* state = find_state(r);
  if (state != nullptr && state->known != nullptr) {
    state->known->forget_later();
  }
  if (hangs_on_body(r)) {
    return NGX_AGAIN;
  }
  if (key.empty()) {
    return NGX_DECLINED;
  }
  const Bounds* bounds = &limit.bounds;
  if (of_tier) {
    const Tier* tier = find_named(main_conf(r)->tiers, name);
    if (tier == nullptr && limit.dry_run) {
      tell_of_unknown_tier(r, limit, name);
      charges.would_refuse = true;
      return NGX_DECLINED;
    }
    if (tier == nullptr) {
      if (RequestState* earlier = find_state(r); earlier != nullptr) {
        undo_earlier(*earlier);
      }
      return refuse_request(r, unknown_tier(r, limit, name));
    }
    if (!limit.dry_run && charges.tier == nullptr) {
      charges.tier = tier;
    }
    bounds = &limit.tier_bounds[tier->index];
  }
  return add_bounds(r, limit, key, *bounds, of_tier, charges);
}

// Whether the location does something for the request, other than to show an error page.
bool does_work(ngx_http_request_t* r) noexcept {
  return static_cast<ngx_http_core_loc_conf_t*>(
             ngx_http_get_module_loc_conf(r, ngx_http_core_module))
             ->handler != nullptr;
}

// After an internal redirect a limit is not charged twice. One that has refused, or whose charge
// was given back as the first location failed, is judged again where there is work to be done.
bool is_done_with(const RequestState& state, const Limit& limit, bool works) noexcept {
  return state.met.has(&limit, MetLimits::kDegraded) ||
         state.met.has(&limit, works ? MetLimits::kCharged : MetLimits::kJudged);
}

// Results as add_limit's.
ngx_int_t add_limits(ngx_http_request_t* r, const LocConf& loc, Stage stage,
                     Charges& charges) noexcept {
  ngx_int_t result = NGX_DECLINED;
  const RequestState* state = find_state(r);
  const bool works = does_work(r);
  for (const Limit* limit : loc.limits) {
    if (limit->stage != stage || (state != nullptr && is_done_with(*state, *limit, works))) {
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

// The charges of all limits that can be told now. Results as add_limit's.
ngx_int_t gather(ngx_http_request_t* r, const LocConf& loc, Stage stage,
                 Charges& charges) noexcept {
  charges.clear();
  RequestState* state = find_state(r);
  if (!loc.degrades && (!has_body(r) || (state != nullptr && state->body_read))) {
    return add_limits(r, loc, stage, charges);
  }
  state = state_of(r);
  if (state == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  KnownVariables known(r);
  state->known = &known;
  const ngx_int_t rc = add_limits(r, loc, stage, charges);
  state->known = nullptr;
  return rc;
}

// `"free-rate","ip"`: the names of the limits that refused.
size_t list_exceeded(std::span<const Judged> judged, char* out, size_t capacity) noexcept {
  size_t size = 0;
  for (const Judged& j : judged) {
    const std::string_view name = view(j.rule->name);
    if (!j.exceeded || size + name.size() + 3 > capacity) {
      continue;
    }
    if (size > 0) {
      out[size++] = ',';
    }
    out[size++] = '"';
    ngx_memcpy(out + size, name.data(), name.size());
    size += name.size();
    out[size++] = '"';
  }
  return size;
}

// When a lease comes free nobody knows; on average this soon.
void expect_release(Charges& charges) noexcept {
  for (size_t i = 0; i < charges.judged().size(); ++i) {
    const Judged& j = charges.judged()[i];
    if (j.exceeded && j.rule->kind == RuleKind::kConcurrency) {
      charges.charges()[i].decision.retry_after_ns = usual_wait_ns(*j.bound);
    }
  }
}

// Marks the limits that refused; returns the one to wait for longest.
const Judged& mark_exceeded(const MainConf& main, Charges& charges, size_t& exceeded) noexcept {
  for (Judged& j : charges.judged()) {
    j.exceeded = !j.decision->admit && !j.advisory;
  }
  expect_release(charges);
  const Judged* worst = charges.judged().data();  // if none were: one at least has refused
  exceeded = 0;
  for (size_t i = 0; i < charges.judged().size(); ++i) {
    const Judged& j = charges.judged()[i];
    if (!j.exceeded) {
      continue;
    }
    if (++exceeded == 1 || j.decision->never() ||
        (!worst->decision->never() &&
         j.decision->retry_after_ns >= worst->decision->retry_after_ns)) {
      worst = &j;
    }
    count_limit(main, *j.bound->counter, Outcome::kRejected, charges.charges()[i].hash.hi);
  }
  return *worst;
}

// No wait makes room for this request.
ngx_int_t refuse_too_costly(ngx_http_request_t* r, const Judged& worst) noexcept {
  const bool gpu = worst.rule->unit == Unit::kGpu;
  const uint64_t cost = (worst.cost + worst.rule->scale() - 1) / worst.rule->scale();
  ngx_str_t allows = worst.rule->allows;
  const ngx_str_t unit = str(word_of(worst.rule->unit, cost));
  const ngx_str_t detail =
      print(r->pool,
            "%V This request is reckoned at %uL %V, and at most %uL may come at once: ask "
            "for less.",
            &allows, cost, &unit, worst.bound->policy.limit / worst.rule->scale());
  return refuse_request(r,
                        {.status = 400,
                         .detail = view(detail),
                         .code = "invalid_request",
                         .param = worst.rule->unit == Unit::kTokens && !gpu ? "max_tokens" : ""});
}

void note_judged(ngx_http_request_t* r, RequestState& state, Stage stage, Charges& charges,
                 bool admitted) noexcept {
  state.judged_in[static_cast<size_t>(stage)] = loc_conf(r);
  const bool first = state.met.empty();
  const unsigned marks = admitted ? MetLimits::kJudged | MetLimits::kCharged : MetLimits::kJudged;
  const Limit* last = nullptr;  // the rules of one plan come together
  for (const Judged& j : charges.judged()) {
    if (j.limit == last) {
      continue;
    }
    last = j.limit;
    if (first) {
      state.met.push(last, marks);
    } else {
      state.met.add(last, marks);
    }
  }
}

// When a caller should come back to a place where others wait to be let in, too: not all at once,
// and nobody later than `latest_ns`. Each process spreads those that it has refused.
int64_t return_after_ns(const MainConf& main, uint64_t place, uint64_t who, int64_t after_ns,
                        int64_t step_ns, int64_t latest_ns) noexcept {
  Process& process = *main.process;
  const int64_t now_ns = monotonic_ns();
  return process.returns->tell(place, who, now_ns, now_ns + after_ns, step_ns,
                               now_ns + ngx_max(after_ns, latest_ns), process.processes) -
         now_ns;
}

// A bucket that several callers share has room for one of them at a time.
int64_t return_after_ns(ngx_http_request_t* r, const Judged& worst,
                        const limit::Charge& charge) noexcept {
  std::string_view caller;
  const limit::Policy& policy = worst.bound->policy;
  if (policy.algorithm != limit::Algorithm::gcra || !share_of(r, caller) || caller.empty()) {
    return worst.decision->retry_after_ns;
  }
  const uint64_t who = limit::siphash13_128(worst.limit->zone->key_secret, caller).lo;
  const int64_t step_ns =
      limit::gcra_ns_up(policy.gcra.interval) * static_cast<int64_t>(ngx_max(worst.cost, 1u));
  constexpr int64_t kLatestNs = 3600 * kNsPerSec;
  return return_after_ns(*main_conf(r), charge.hash.lo ^ charge.hash.hi, who,
                         worst.decision->retry_after_ns, step_ns, kLatestNs);
}

ngx_int_t refuse_over_limit(ngx_http_request_t* r, RequestState& state, Stage stage,
                            Charges& charges) noexcept {
  size_t exceeded = 0;
  const Judged& worst = mark_exceeded(*main_conf(r), charges, exceeded);
  undo_earlier(state);
  note_judged(r, state, stage, charges, false);
  state.verdict = Verdict::kRejected;
  state.exceeded = worst.rule;
  state.dry_run = false;
  if (!push_rate_headers(r, state.tier, charges.judged(), true, state.rate_headers)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (worst.decision->never()) {
    log_refusal(r, state, 400, view(worst.rule->name));
    return refuse_too_costly(r, worst);
  }
  const auto index = static_cast<size_t>(&worst - charges.judged().data());
  state.retry_after_s = seconds_up(return_after_ns(r, worst, charges.charges()[index]));
  log_refusal(r, state, 429, view(worst.rule->name));
  if (exceeded == 1) {
    return refuse_request(r, 429, state.retry_after_s,
                          worst.rule->refusal.with(r->pool, state.retry_after_s));
  }
  char names[1024];
  const size_t names_size = list_exceeded(charges.judged(), names, sizeof names);
  char detail[kSentenceBytes + 48];
  return refuse_request(
      r, {.status = 429,
          .detail = say_when(view(worst.rule->sentence), state.retry_after_s, detail),
          .code = worst.rule->code(),
          .retry_after_s = state.retry_after_s,
          .violated_policies = {names, names_size},
          .docs = state.tier == nullptr ? view(main_conf(r)->docs) : view(state.tier->docs)});
}

ngx_int_t refuse_full_table(ngx_http_request_t* r, RequestState& state,
                            const LocConf& loc) noexcept {
  static time_t last_said = 0;
  if (may_say(last_said)) {
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "zone \"%V\" is full of live limits: new keys are refused; make it larger",
                  &loc.limits[0]->zone->name);
  }
  undo_earlier(state);
  state.verdict = Verdict::kBusy;
  // Room comes as limits fall idle, nobody knows when: not all shall come back at once.
  state.retry_after_s = 10 + static_cast<int64_t>(ngx_random() % 11);
  char detail[kSentenceBytes + 48];
  const std::string_view sentence =
      say_when("Too many callers at once.", state.retry_after_s, detail);
  return refuse_request(
      r, {.status = 503, .detail = sentence, .code = "busy", .retry_after_s = state.retry_after_s});
}

ngx_int_t refuse_busy(ngx_http_request_t* r, RequestState& state,
                      const QueueRefusal& why) noexcept {
  std::string_view who;
  if (!share_of(r, who)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  who = who.empty() ? view(r->connection->addr_text) : who;
  undo_earlier(state);  // of a location that was redirected from
  static constexpr limit::Secret kNoSecret;
  const uint64_t place = limit::siphash13_128(kNoSecret, view(loc_conf(r)->queue)).lo;
  state.verdict = Verdict::kBusy;
  state.retry_after_s = seconds_up(
      return_after_ns(*main_conf(r), place, limit::siphash13_128(kNoSecret, who).lo,
                      why.step_ns > 0 ? why.taken_ns + why.step_ns : why.retry_after_s * kNsPerSec,
                      why.step_ns, why.drained_ns));
  state.retry_after_s = ngx_max(state.retry_after_s, 1);
  log_refusal(r, state, 503, loc_conf(r)->queue.len == 0 ? "default" : view(loc_conf(r)->queue));
  char detail[kSentenceBytes + 48];
  const std::string_view sentence = say_when(why.reason, state.retry_after_s, detail);
  return refuse_request(
      r, {.status = 503, .detail = sentence, .code = "busy", .retry_after_s = state.retry_after_s});
}

Outcome dry_outcome(Action action) noexcept {
  switch (action) {
    case Action::kDelay:
      return Outcome::kDelayedDryRun;
    case Action::kDegrade:
      return Outcome::kDegradedDryRun;
    default:
      return Outcome::kRejectedDryRun;
  }
}

Verdict verdict_of(Action action) noexcept {
  switch (action) {
    case Action::kDelay:
      return Verdict::kDelayed;
    case Action::kDegrade:
      return Verdict::kDegraded;
    default:
      return Verdict::kRejected;
  }
}

// What became of the limits of an admitted request.
struct Admitted {
  bool over = false;            // some are over
  int64_t delay_ns = 0;         // how long it is to be held back
  const Judged* dry = nullptr;  // what a dry run would have acted upon
};

bool is_over(const Judged& j) noexcept { return !j.decision->admit || j.decision->delay_ns > 0; }

Admitted sum_up(Charges& charges) noexcept {
  Admitted sum;
  for (const Judged& j : charges.judged()) {
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
    count_passed(charges.judged());
    return;
  }
  for (const Judged& j : charges.judged()) {
    const Outcome outcome = !is_over(j)  ? Outcome::kPassed
                            : j.advisory ? dry_outcome(j.limit->action)
                                         : Outcome::kDelayed;
    count_limit(main, *j.bound->counter, outcome, 0);
  }
}

Outcome outcome_of(const RequestState& state) noexcept {
  switch (state.verdict) {
    case Verdict::kDelayed:
      return state.dry_run ? Outcome::kDelayedDryRun : Outcome::kDelayed;
    case Verdict::kDegraded:
      return state.dry_run ? Outcome::kDegradedDryRun : Outcome::kDegraded;
    case Verdict::kRejected:
      return state.dry_run ? Outcome::kRejectedDryRun : Outcome::kRejected;
    case Verdict::kBusy:
      return Outcome::kBusy;
    default:
      return Outcome::kPassed;
  }
}

// Too many wait already: what would be held back is refused, and told when it need not wait.
ngx_int_t refuse_to_hold_back(ngx_http_request_t* r, RequestState& state, limit::Table& table,
                              Stage stage, Charges& charges) noexcept {
  limit::refund_all(table, std::span<const limit::Charge>(charges.charges()), instant(table));
  for (limit::Charge& charge : charges.charges()) {
    if (charge.decision.delay_ns > 0 && !charge.advisory) {
      charge.decision.admit = false;
      charge.decision.retry_after_ns = charge.decision.delay_ns;
    }
  }
  return refuse_over_limit(r, state, stage, charges);
}

// What an earlier stage did to the request stays said, unless this one did something, too.
void note_verdict(RequestState& state, const Admitted& sum, bool would_refuse) noexcept {
  const bool acted = sum.delay_ns > 0 || state.met.any(MetLimits::kDegraded);
  if (acted || state.verdict == Verdict::kNone || state.verdict == Verdict::kPassed) {
    state.verdict = sum.delay_ns > 0                      ? Verdict::kDelayed
                    : state.met.any(MetLimits::kDegraded) ? Verdict::kDegraded
                    : would_refuse                        ? Verdict::kRejected
                    : sum.dry != nullptr                  ? verdict_of(sum.dry->limit->action)
                                                          : Verdict::kPassed;
    state.dry_run = !acted && (would_refuse || sum.dry != nullptr);
  }
  if (sum.dry != nullptr) {
    state.exceeded = sum.dry->rule;
  }
  state.admitted = state.verdict;
}

// An operator's error_page has led the refused request to where it is admitted.
void forget_refusal(RequestState& state) noexcept {
  if ((state.verdict == Verdict::kRejected && !state.dry_run) || state.verdict == Verdict::kBusy) {
    state.verdict = Verdict::kNone;
    state.exceeded = nullptr;
    state.retry_after_s = 0;
    take_back(state.retry);
  }
}

ngx_int_t admit(ngx_http_request_t* r, RequestState& state, const LocConf& loc, Stage stage,
                Charges& charges) noexcept {
  const MainConf& main = *main_conf(r);
  limit::Table& table = *table_of(loc);
  forget_refusal(state);
  const Admitted sum = sum_up(charges);
  if (sum.delay_ns > 0 && !may_hold_back(main)) {
    return refuse_to_hold_back(r, state, table, stage, charges);
  }
  count_admitted(main, charges, sum.over);
  note_judged(r, state, stage, charges, true);
  state.passes = loc.passes;
  note_verdict(state, sum, charges.would_refuse);
  // Where nothing answers, try_files or an index may lead to other limits, which may refuse.
  const bool receipt =
      loc.passes || loc.later || charges.lasting || sum.delay_ns > 0 || !does_work(r);
  const bool kept =
      receipt && keep(r->pool, state.receipt, table, main, charges.charges(), charges.judged());
  if (kept != receipt ||
      !push_rate_headers(r, state.tier, charges.judged(), false, state.rate_headers) ||
      (state.met.any(MetLimits::kDegraded) && !push_degraded(r, state, loc, stage))) {
    if (!kept) {
      limit::refund_all(table, std::span<const limit::Charge>(charges.charges()), instant(table));
    }
    give_all_back(state);
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                 "penstock charged %uz counters, %L ns to be held back", charges.charges().size(),
                 sum.delay_ns);
  return sum.delay_ns > 0 ? hold_back(r, state, sum.delay_ns) : NGX_DECLINED;
}

// The body is here: the phases go on with the handler that asked for it.
void resume_phases(ngx_http_request_t* r) noexcept {
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
ngx_int_t read_body_then_judge(ngx_http_request_t* r, RequestState& state, const LocConf& loc,
                               Stage stage, Charges& charges) noexcept {
  if (!charges.empty()) {
    limit::Table& table = *table_of(loc);
    if (limit::peek_all(table, charges.charges(), instant(table)) == limit::Outcome::refused &&
        !may_degrade(r, state, charges.judged())) {
      return refuse_over_limit(r, state, stage, charges);
    }
  }
  if (const std::string_view encoding = encoding_of(r); !encoding.empty()) {
    return refuse_encoded(r, state, encoding);
  }
  if (loc.passes && r->headers_in.content_length_n > kMaxBodyBytes) {
    undo_earlier(state);
    return NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
  }
  const ngx_int_t rc = ngx_http_read_client_request_body(r, resume_phases);
  if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
    return rc;
  }
  ngx_http_finalize_request(r, NGX_DONE);
  return NGX_DONE;
}

constexpr ngx_int_t kAnew = NGX_MAX_INT_T_VALUE;  // degraded: it is another request now

ngx_int_t charge(ngx_http_request_t* r, RequestState& state, const LocConf& loc, Stage stage,
                 Charges& charges) noexcept {
  static unsigned turn = 0;
  if (charges.empty() && state.met.any(MetLimits::kDegraded)) {
    return admit(r, state, loc, stage, charges);  // what it was made less for is all there was
  }
  if (charges.empty()) {
    state.passes = loc.passes;
    if (state.verdict == Verdict::kNone) {
      note_verdict(state, {}, charges.would_refuse);
    }
    return NGX_DECLINED;
  }
  limit::Table& table = *table_of(loc);
  const limit::Instant now = instant(table);
  const limit::Outcome outcome = limit::charge_all(table, charges.charges(), now);
  if (++turn % kSampled == 0) {
    observe_decision(*main_conf(r), instant(table).steady_ns - now.steady_ns);
  }
  ngx_log_debug3(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                 "penstock judged %uz counters at stage %d: outcome %d", charges.charges().size(),
                 static_cast<int>(stage), static_cast<int>(outcome));
  switch (outcome) {
    case limit::Outcome::admitted:
      return admit(r, state, loc, stage, charges);
    case limit::Outcome::refused:
    case limit::Outcome::never_admissible:
      if (loc.degrades && hangs_on_model(r, state, charges.judged())) {
        return read_body_then_judge(r, state, loc, stage, charges);
      }
      return loc.degrades && degrade(r, state, charges.judged())
                 ? kAnew
                 : refuse_over_limit(r, state, stage, charges);
    case limit::Outcome::table_full:
      break;
  }
  return refuse_full_table(r, state, loc);
}

// The queue would refuse it. Whoever is over a limit of its own is told that, and takes no place
// among those who are told when there is room.
ngx_int_t refuse_what_waits(ngx_http_request_t* r, RequestState& state, const LocConf& loc,
                            Stage stage, Charges& charges, const QueueRefusal& why) noexcept {
  if (!charges.empty()) {
    limit::Table& table = *table_of(loc);
    if (limit::peek_all(table, charges.charges(), instant(table)) == limit::Outcome::refused &&
        !may_degrade(r, state, charges.judged())) {
      return refuse_over_limit(r, state, stage, charges);
    }
  }
  return refuse_busy(r, state, why);
}

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
  QueueRefusal why;
  const bool busy = stage == Stage::kPreaccess && loc.passes && r->method == NGX_HTTP_POST &&
                    queue_refuses(loc, why) && !may_not_wait(r) &&
                    !(why.may_promise && asks_for_promise(r));
  Charges charges;
  for (;;) {
    const ngx_int_t rc = gather(r, loc, stage, charges);
    if (rc != NGX_DECLINED && rc != NGX_AGAIN) {
      return rc;
    }
    // Made only now: the counters' memory arrives meanwhile.
    state = state_of(r);
    if (state == nullptr) {
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    state->tier = charges.tier == nullptr ? state->tier : charges.tier;
    if (busy) {
      return refuse_what_waits(r, *state, loc, stage, charges, why);
    }
    const ngx_int_t done = rc == NGX_AGAIN ? read_body_then_judge(r, *state, loc, stage, charges)
                                           : charge(r, *state, loc, stage, charges);
    if (done != kAnew) {
      return done;
    }
  }
}

}  // namespace

ngx_int_t judge_before_access(ngx_http_request_t* r) noexcept {
  const LocConf& loc = *loc_conf(r);
  if (r != r->main || (loc.limits.empty() && !loc.passes)) {
    return NGX_DECLINED;
  }
  return judge(r, loc, Stage::kPreaccess);
}

ngx_int_t count_outcome(ngx_http_request_t* r) noexcept {
  if (const RequestState* state = find_state(r);
      state != nullptr && state->verdict != Verdict::kNone) {
    count_request(*main_conf(r), state->tier, outcome_of(*state));
  }
  return NGX_OK;
}

ngx_int_t judge_after_access(ngx_http_request_t* r) noexcept {
  const LocConf& loc = *loc_conf(r);
  return r == r->main && loc.later ? judge(r, loc, Stage::kAccess) : NGX_DECLINED;
}

http::Problem unknown_tier(ngx_http_request_t* r, const Limit& limit,
                           std::string_view name) noexcept {
  tell_of_unknown_tier(r, limit, name);
  if (RequestState* state = state_of(r); state != nullptr) {
    state->verdict = Verdict::kRejected;
  }
  return {.status = 403, .detail = "Your plan is not known here.", .code = "forbidden"};
}

}  // namespace penstock
