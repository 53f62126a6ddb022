#include "ngx_module/admission.h"

#include <algorithm>

#include "ngx_module/pass.h"
#include "ngx_module/rate_headers.h"
#include "ngx_module/reply.h"
#include "ngx_module/status_source.h"
#include "shared/base/clock.h"

namespace penstock {
namespace {

constexpr size_t kSentenceBytes = 512;  // print() in limit_directives.cc makes none longer

// The charges of one request, on the stack; only as many as there are get written.
class Charges {
 public:
  // Starts fetching the counter's memory, which arrives while other keys are read.
  bool add(const limit::Table& table, const Counter& counter, const limit::Hash128& key_hash,
           bool of_tier) noexcept {
    if (count_ == kMaxCharges) {
      return false;
    }
    auto* charge = new (memory_ + count_ * sizeof(limit::Charge)) limit::Charge();
    charge->policy = &counter.rule->gcra;
    charge->hash = counter.place_of(key_hash);
    table.prefetch(charge->hash);
    judged_[count_++] = {counter.rule, &charge->decision, of_tier, false};
    return true;
  }
  std::span<limit::Charge> charges() noexcept {
    return {std::launder(reinterpret_cast<limit::Charge*>(memory_)), count_};
  }
  std::span<Judged> judged() noexcept { return {judged_, count_}; }
  void clear() noexcept {
    count_ = 0;
    tier = nullptr;
  }
  const Tier* tier = nullptr;  // the caller's plan

 private:
  size_t count_ = 0;
  alignas(limit::Charge) std::byte memory_[kMaxCharges * sizeof(limit::Charge)];
  Judged judged_[kMaxCharges];
};

limit::Table* table_of(const LocConf& loc) noexcept {
  return loc.limits.empty() ? nullptr : &*loc.limits[0]->zone->table;
}

ngx_int_t refuse_unknown_tier(ngx_http_request_t* r, std::string_view name) noexcept {
  ngx_str_t text = str(name.substr(0, 64));
  ngx_log_error(
      NGX_LOG_ERR, r->connection->log, 0,
      "unknown penstock tier \"%V\": add a penstock_tier block for it, or mend the variable",
      &text);
  RequestState* state = state_of(r);
  if (state == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  state->verdict = Verdict::kRejected;
  return refuse_request(
      r, {.status = 403, .detail = "Your plan is not known here.", .code = "forbidden"});
}

// Whether a variable was asked for that only the body tells, and the body is still to come.
bool hangs_on_body(ngx_http_request_t* r) noexcept {
  const RequestState* state = find_state(r);
  return state != nullptr && state->body_wanted && !state->body_read &&
         (r->headers_in.content_length_n > 0 || r->headers_in.chunked != 0);
}

void add_counters(const Limit& limit, std::string_view key,
                  const PoolArray<Counter*>* tier_counters, Charges& charges) noexcept {
  const limit::Hash128 hash = limit.key.kind == Value::Kind::kConstant
                                  ? limit.constant_hash
                                  : limit::siphash13_128(limit.zone->key_secret, key);
  if (tier_counters == nullptr) {
    charges.add(*limit.zone->table, *limit.counter, hash, false);
    return;
  }
  for (const Counter* counter : *tier_counters) {
    charges.add(*limit.zone->table, *counter, hash, true);
  }
}

// Adds what one penstock_limit charges. NGX_DECLINED: go on; NGX_AGAIN: this one hangs on the body,
// which is still to come; else that is the handler's result.
ngx_int_t add_limit(ngx_http_request_t* r, const Limit& limit, Charges& charges) noexcept {
  std::string_view key;
  std::string_view name;
  if (RequestState* state = find_state(r); state != nullptr) {
    state->body_wanted = false;
  }
  if (!limit.key.get(r, key) || !limit.tier.get(r, name)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (hangs_on_body(r)) {
    return NGX_AGAIN;
  }
  if (key.empty()) {
    return NGX_DECLINED;
  }
  if (limit.counter != nullptr) {
    add_counters(limit, key, nullptr, charges);
    return NGX_DECLINED;
  }
  const PoolArray<Tier*>& tiers = main_conf(r)->tiers;
  for (size_t i = 0; i < tiers.size(); ++i) {
    if (view(tiers[i]->name) == name) {
      charges.tier = charges.tier == nullptr ? tiers[i] : charges.tier;
      add_counters(limit, key, &limit.tier_counters[i], charges);
      return NGX_DECLINED;
    }
  }
  return refuse_unknown_tier(r, name);
}

// The charges of all limits that can be told now. Results as add_limit's.
ngx_int_t gather(ngx_http_request_t* r, const LocConf& loc, Charges& charges) noexcept {
  charges.clear();
  ngx_int_t result = NGX_DECLINED;
  for (const Limit* limit : loc.limits) {
    const ngx_int_t rc = add_limit(r, *limit, charges);
    if (rc == NGX_AGAIN) {
      result = NGX_AGAIN;
    } else if (rc != NGX_DECLINED) {
      return rc;
    }
  }
  return result;
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

ngx_int_t refuse_over_limit(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept {
  const Judged* worst = charges.judged().data();  // one at least has refused
  size_t exceeded = 0;
  for (Judged& j : charges.judged()) {
    j.exceeded = !j.decision->admit;
    exceeded += j.exceeded ? 1 : 0;
    if (j.exceeded && j.decision->retry_after_ns >= worst->decision->retry_after_ns) {
      worst = &j;
    }
  }
  state.judged = true;
  state.verdict = Verdict::kRejected;
  state.exceeded = worst->rule;
  state.retry_after_s = seconds_up(worst->decision->retry_after_ns);
  if (!push_rate_headers(r, state.tier, charges.judged(), true)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (exceeded == 1) {
    return refuse_request(r, 429, state.retry_after_s,
                          worst->rule->refusal.with(r->pool, state.retry_after_s));
  }
  char names[1024];
  const size_t names_size = list_exceeded(charges.judged(), names, sizeof names);
  char detail[kSentenceBytes + 48];
  return refuse_request(
      r, {.status = 429,
          .detail = say_when(view(worst->rule->sentence), state.retry_after_s, detail),
          .code = "rate_limit_exceeded",
          .retry_after_s = state.retry_after_s,
          .violated_policies = {names, names_size}});
}

ngx_int_t refuse_full_table(ngx_http_request_t* r, RequestState& state,
                            const LocConf& loc) noexcept {
  static time_t last_said = 0;  // each worker process says it once a minute
  if (ngx_time() - last_said >= 60) {
    last_said = ngx_time();
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "zone \"%V\" is full of live limits: new keys are refused; make it larger",
                  &loc.limits[0]->zone->name);
  }
  state.verdict = Verdict::kBusy;
  state.retry_after_s = 1;
  return refuse_request(r, {.status = 503,
                            .detail = "Too many callers at once. Try again in 1 s.",
                            .code = "busy",
                            .retry_after_s = 1});
}

ngx_int_t refuse_busy(ngx_http_request_t* r, RequestState& state,
                      const QueueRefusal& why) noexcept {
  state.verdict = Verdict::kBusy;
  state.retry_after_s = why.retry_after_s;
  char detail[kSentenceBytes + 48];
  const std::string_view sentence = say_when(why.reason, why.retry_after_s, detail);
  return refuse_request(
      r, {.status = 503, .detail = sentence, .code = "busy", .retry_after_s = why.retry_after_s});
}

// Notes what was charged, so that it can be given back.
bool keep_receipt(ngx_http_request_t* r, RequestState& state, limit::Table& table,
                  Charges& charges) noexcept {
  const std::span<limit::Charge> all = charges.charges();
  auto* paid = static_cast<Paid*>(ngx_palloc(r->pool, all.size() * sizeof(Paid)));
  if (paid == nullptr) {
    return false;
  }
  for (size_t i = 0; i < all.size(); ++i) {
    paid[i] = {all[i].policy, all[i].hash, all[i].decision.next_state};
  }
  state.table = &table;
  state.paid = {paid, all.size()};
  return true;
}

ngx_int_t charge(ngx_http_request_t* r, RequestState& state, const LocConf& loc,
                 Charges& charges) noexcept {
  limit::Table* table = table_of(loc);
  if (table == nullptr || charges.charges().empty()) {
    state.verdict = Verdict::kPassed;
    return NGX_DECLINED;
  }
  switch (limit::charge_all(*table, charges.charges(), monotonic_ns())) {
    case limit::Outcome::admitted:
      state.judged = true;
      state.verdict = Verdict::kPassed;
      if (loc.passes && !keep_receipt(r, state, *table, charges)) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
      }
      return push_rate_headers(r, state.tier, charges.judged(), false)
                 ? NGX_DECLINED
                 : NGX_HTTP_INTERNAL_SERVER_ERROR;
    case limit::Outcome::refused:
    case limit::Outcome::never_admissible:
      return refuse_over_limit(r, state, charges);
    case limit::Outcome::table_full:
      break;
  }
  return refuse_full_table(r, state, loc);
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

// Some key hangs on the body. What can be judged without it is judged first, so that a flood of
// large bodies is refused by their headers alone.
ngx_int_t read_body_then_judge(ngx_http_request_t* r, RequestState& state, const LocConf& loc,
                               Charges& charges) noexcept {
  limit::Table* table = table_of(loc);
  if (table != nullptr && !charges.charges().empty() &&
      limit::peek_all(*table, charges.charges(), monotonic_ns()) == limit::Outcome::refused) {
    return refuse_over_limit(r, state, charges);
  }
  if (loc.passes && r->headers_in.content_length_n > kMaxBodyBytes) {
    return NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
  }
  const ngx_int_t rc = ngx_http_read_client_request_body(r, resume_phases);
  if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
    return rc;
  }
  ngx_http_finalize_request(r, NGX_DONE);
  return NGX_DONE;
}

}  // namespace

ngx_int_t judge_request(ngx_http_request_t* r) noexcept {
  const LocConf& loc = *loc_conf(r);
  if (r != r->main || (loc.limits.empty() && !loc.passes)) {
    return NGX_DECLINED;
  }
  RequestState* state = find_state(r);
  if (state != nullptr && state->judged) {
    return NGX_DECLINED;  // once a request, also across internal redirects
  }
  QueueRefusal why;
  const bool busy = loc.passes && r->method == NGX_HTTP_POST && queue_refuses(loc, why);
  Charges charges;
  const ngx_int_t rc = busy ? NGX_DECLINED : gather(r, loc, charges);
  if (rc != NGX_DECLINED && rc != NGX_AGAIN) {
    return rc;
  }
  // Made only now: the counters' memory arrives meanwhile.
  state = state_of(r);
  if (state == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  state->tier = charges.tier;
  if (busy) {
    return refuse_busy(r, *state, why);
  }
  return rc == NGX_AGAIN ? read_body_then_judge(r, *state, loc, charges)
                         : charge(r, *state, loc, charges);
}

}  // namespace penstock
