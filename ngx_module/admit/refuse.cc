#include "ngx_module/admit/refuse.h"

#include <algorithm>

#include "ngx_module/admit/prove.h"
#include "ngx_module/admit/quota_word.h"
#include "ngx_module/admit/refusal_log.h"
#include "ngx_module/challenge/tell_challenge.h"
#include "ngx_module/conf/text.h"
#include "ngx_module/reply/reply.h"
#include "ngx_module/request/telemetry.h"
#include "shared/base/clock.h"

namespace penstock {
namespace {

constexpr size_t kSentenceBytes = 512;  // print() makes none longer

// What an earlier stage has charged and said is given back, as if it had not been. Most requests
// had none.
void undo_earlier(RequestState& state) noexcept {
  if (state.met.empty()) {
    return;
  }
  give_all_back(state);
  take_back(state.degraded_header);
  take_back(state.rate_headers);
}

// Each worker process says it once a minute. False: it has said it.
bool may_say(time_t& last_said) noexcept {
  const bool due = ngx_time() - last_said >= 60;
  last_said = due ? ngx_time() : last_said;
  return due;
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
int64_t return_after_ns(ngx_http_request_t* r, const ChargeResult& worst,
                        const limit::Charge& charge) noexcept {
  std::string_view caller;
  const limit::Policy& policy = worst.bound->policy;
  if ((policy.algorithm != limit::Algorithm::gcra &&
       policy.algorithm != limit::Algorithm::leased) ||
      !share_of(r, caller) || caller.empty()) {
    return worst.decision->retry_after_ns;
  }
  const uint64_t who = limit::siphash13_128(worst.limit->zone->key_secret, caller).lo;
  const int64_t step_ns =
      limit::gcra_ns_up(policy.gcra.interval) * static_cast<int64_t>(ngx_max(worst.cost, 1u));
  constexpr int64_t kLatestNs = 3600 * kNsPerSec;
  return return_after_ns(*main_conf(r), charge.hash.lo ^ charge.hash.hi, who,
                         worst.decision->retry_after_ns, step_ns, kLatestNs);
}

// `"free-rate","ip"`: the names of the limits that refused.
size_t list_exceeded(std::span<const ChargeResult> results, char* out, size_t capacity) noexcept {
  size_t size = 0;
  for (const ChargeResult& j : results) {
    const std::string_view name = view(j.rule().name);
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

// Marks the limits that refused; returns the one to wait for longest.
const ChargeResult& mark_exceeded(const MainConf& main, const RequestState& state, Charges& charges,
                                  size_t& exceeded) noexcept {
  const std::span<ChargeResult> results = charges.results();
  const ChargeResult* worst = results.data();  // if none were: one at least has refused
  exceeded = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    ChargeResult& j = results[i];
    limit::Charge& charge = charges.charges()[i];
    j.exceeded = !charge.decision.admit && !j.advisory;
    if (!j.exceeded) {
      continue;
    }
    if (j.rule().kind == RuleKind::kConcurrency) {
      charge.decision.retry_after_ns = usual_wait_ns(*j.bound);  // when, nobody knows
    }
    if (++exceeded == 1 || j.decision->never() ||
        (!worst->decision->never() &&
         j.decision->retry_after_ns >= worst->decision->retry_after_ns)) {
      worst = &j;
    }
    count_limit(main, *j.bound->counter,
                asks_challenge(state, j) ? Outcome::kChallenged : Outcome::kRejected,
                charge.hash.hi);
  }
  return *worst;
}

// Whether a challenge is all that keeps the caller out.
bool may_be_challenged(const RequestState& state, std::span<const ChargeResult> results) noexcept {
  return std::all_of(results.begin(), results.end(), [&](const ChargeResult& j) noexcept {
    return !j.exceeded || asks_challenge(state, j);
  });
}

// No wait makes room for this request.
ngx_str_t tell_too_costly(ngx_http_request_t* r, const ChargeResult& worst) noexcept {
  const bool gpu = worst.rule().unit == Unit::kGpu;
  const uint64_t cost = (worst.cost + worst.rule().scale() - 1) / worst.rule().scale();
  ngx_str_t allows = worst.rule().allows;
  const ngx_str_t unit = str(word_of(worst.rule().unit, cost));
  const ngx_str_t detail =
      print(r->pool,
            "%V This request is reckoned at %uL %V, and at most %uL may come at once: ask "
            "for less.",
            &allows, cost, &unit, worst.bound->policy.limit / worst.rule().scale());
  return render_problem(r->pool,
                        {.status = 400,
                         .detail = view(detail),
                         .code = "invalid_request",
                         .param = worst.rule().unit == Unit::kTokens && !gpu ? "max_tokens" : ""});
}

}  // namespace

ngx_int_t refuse_over_limit(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept {
  OverLimit told;
  return tell_over_limit(r, state, charges, told)
             ? refuse_request(r, told.status, told.retry_after_s, told.body, told.type)
             : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

bool tell_over_limit(ngx_http_request_t* r, RequestState& state, Charges& charges,
                     OverLimit& told) noexcept {
  size_t exceeded = 0;
  const ChargeResult& worst = mark_exceeded(*main_conf(r), state, charges, exceeded);
  const bool challenged = may_be_challenged(state, charges.results());
  tell_of_quotas(r, charges);
  undo_earlier(state);
  note_judged(state, charges, false);
  state.outcome = challenged ? Outcome::kChallenged : Outcome::kRejected;
  state.exceeded = &worst.rule();
  if (!push_rate_headers(r, state.tier, charges.results(), true, state.rate_headers)) {
    return false;
  }
  if (worst.decision->never()) {
    log_refusal(r, state, 400, view(worst.rule().name));
    told = {.status = 400, .body = tell_too_costly(r, worst)};
    return told.body.data != nullptr;
  }
  const auto index = static_cast<size_t>(&worst - charges.results().data());
  state.retry_after_s = seconds_up(return_after_ns(r, worst, charges.charges()[index]));
  log_refusal(r, state, challenged ? 403 : 429, view(worst.rule().name));
  told = {.status = challenged ? 403 : 429, .retry_after_s = state.retry_after_s};
  char names[1024];
  if (challenged) {
    const size_t size = list_exceeded(charges.results(), names, sizeof names);
    told.body = tell_challenge(r, state, *worst.limit, {names, size}, told.type);
    return told.body.data != nullptr;
  }
  if (exceeded == 1) {
    told.body = worst.rule().refusal.with(r->pool, state.retry_after_s);
    return told.body.data != nullptr;
  }
  const size_t names_size = list_exceeded(charges.results(), names, sizeof names);
  char detail[kSentenceBytes + 48];
  told.body = render_problem(
      r->pool, {.status = 429,
                .detail = say_when(view(worst.rule().sentence), state.retry_after_s, detail),
                .code = worst.rule().code(),
                .retry_after_s = state.retry_after_s,
                .violated_policies = {names, names_size},
                .docs = state.tier == nullptr ? view(main_conf(r)->docs) : view(state.tier->docs)});
  return told.body.data != nullptr;
}

namespace {

// What lacks comes back, nobody knows when: not all shall return at once.
ngx_int_t refuse_for_now(ngx_http_request_t* r, RequestState& state, std::string_view why,
                         int64_t least_s) noexcept {
  undo_earlier(state);
  state.outcome = Outcome::kBusy;
  state.retry_after_s = least_s + static_cast<int64_t>(ngx_random()) % (least_s + 1);
  char detail[kSentenceBytes + 48];
  const std::string_view sentence = say_when(why, state.retry_after_s, detail);
  return refuse_request(
      r, {.status = 503, .detail = sentence, .code = "busy", .retry_after_s = state.retry_after_s});
}

}  // namespace

ngx_int_t refuse_full_table(ngx_http_request_t* r, RequestState& state) noexcept {
  static time_t last_said = 0;
  if (may_say(last_said)) {
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "zone \"%V\" is full of live limits: new keys are refused; make it larger",
                  &loc_conf(r)->limits[0]->zone->name);
  }
  return refuse_for_now(r, state, "Too many callers at once.", 10);
}

ngx_int_t refuse_without_redis(ngx_http_request_t* r, RequestState& state) noexcept {
  return refuse_for_now(r, state, "The limits cannot be told now.", 1);
}

ngx_int_t refuse_without_check(ngx_http_request_t* r, RequestState& state) noexcept {
  return refuse_for_now(r, state, "Too many answers are being checked at once.", 1);
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
  state.outcome = Outcome::kBusy;
  state.retry_after_s = seconds_up(
      return_after_ns(*main_conf(r), place, limit::siphash13_128(kNoSecret, who).lo,
                      why.step_ns > 0 ? why.taken_ns + why.step_ns : why.retry_after_s * kNsPerSec,
                      why.step_ns, why.drained_ns));
  state.retry_after_s = ngx_max(state.retry_after_s, 1);
  ngx_log_debug4(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                 "penstock queue \"%V\" takes nobody: %*s, again in %L s", &loc_conf(r)->queue,
                 why.reason.size(), why.reason.data(), state.retry_after_s);
  log_refusal(r, state, 503, loc_conf(r)->queue.len == 0 ? "default" : view(loc_conf(r)->queue));
  char detail[kSentenceBytes + 48];
  const std::string_view sentence = say_when(why.reason, state.retry_after_s, detail);
  return refuse_request(
      r, {.status = 503, .detail = sentence, .code = "busy", .retry_after_s = state.retry_after_s});
}

ngx_int_t refuse_fault(ngx_http_request_t* r, RequestState& state, const Fault& fault) noexcept {
  undo_earlier(state);
  state.known = nullptr;  // gather's, and it may not come to that
  state.outcome = Outcome::kRejected;
  return refuse_request(
      r, {.status = 400, .detail = fault.detail, .code = "invalid_request", .param = fault.param});
}

ngx_int_t refuse_encoded(ngx_http_request_t* r, RequestState& state,
                         std::string_view encoding) noexcept {
  undo_earlier(state);
  state.outcome = Outcome::kRejected;
  ngx_str_t named = str(is_name(encoding) ? encoding : "(not a name)");
  if (push_header(r, "Accept-Encoding", str("identity")) == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const ngx_str_t detail = print(
      r->pool, "The Content-Encoding \"%V\" is not read here: send the body as it is.", &named);
  return refuse_request(r, {.status = 415, .detail = view(detail), .code = "unsupported_encoding"});
}

ngx_int_t refuse_too_large(RequestState& state) noexcept {
  undo_earlier(state);
  return NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
}

ngx_int_t refuse_unknown_tier(ngx_http_request_t* r, const Limit& limit,
                              std::string_view name) noexcept {
  if (RequestState* earlier = find_state(r); earlier != nullptr) {
    undo_earlier(*earlier);
    earlier->known = nullptr;  // as above
  }
  return refuse_request(r, unknown_tier(r, limit, name));
}

http::Problem unknown_tier(ngx_http_request_t* r, const Limit& limit,
                           std::string_view name) noexcept {
  tell_of_unknown_tier(r, limit, name);
  if (RequestState* state = state_of(r); state != nullptr) {
    state->outcome = Outcome::kRejected;
  }
  return {.status = 403, .detail = "Your plan is not known here.", .code = "forbidden"};
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

}  // namespace penstock
