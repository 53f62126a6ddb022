#include "ngx_module/admit/quota_word.h"

#include <algorithm>
#include <string_view>

#include "ngx_module/request/quota_line.h"
#include "shared/limit/span_letter.h"

namespace penstock {
namespace {

constexpr unsigned kAll = 100;

// How much of its quota the key has used up, of the two that are told; 0: neither. Whoever is
// refused has used it up, whatever is left for those who ask for less.
unsigned reached(const ChargeResult& j) noexcept {
  const limit::Decision& now = *j.decision;
  const uint64_t most = j.bound->policy.limit;
  const uint64_t used = most - std::min(now.remaining, most);
  if (used >= most || (!now.admit && !now.never() && !now.asks())) {
    return kAll;
  }
  const double part = static_cast<double>(used) * kAll / static_cast<double>(most);
  return part >= j.rule().warn ? j.rule().warn : 0;
}

// Noted in the zone, in a window of its own that admits once.
bool is_first(limit::Table& table, const Rule& rule, const limit::Hash128& place,
              unsigned percent) noexcept {
  const auto window = limit::make_fixed_window(1, rule.policy.window.span);
  if (!window) {
    return false;
  }
  const limit::Policy once = limit::make_policy(*window);
  limit::Secret secret = limit::derive_secret(table.secret(), "told of a quota");
  secret.k0 ^= percent;
  const std::string_view bytes(reinterpret_cast<const char*>(&place), sizeof place);
  limit::Charge charge{&once, limit::siphash13_128(secret, bytes)};
  return limit::charge_all(table, {&charge, 1}, instant(table)) == limit::Outcome::admitted;
}

void tell(ngx_http_request_t* r, const ChargeResult& j, uint64_t key_hash,
          unsigned percent) noexcept {
  const Rule& rule = j.rule();
  const uint64_t most = j.bound->policy.limit;
  int64_t begins_ns[4];
  limit::window_begins(rule.policy.window.span, realtime_ns(), begins_ns);
  u_char digits[16];
  ngx_sprintf(digits, "%016xL", key_hash);
  const char period = limit::letter_of(rule.policy.window.span);
  const wire::QuotaNotice notice{.limit = view(rule.name),
                                 .key_hash = {reinterpret_cast<char*>(digits), sizeof digits},
                                 .unit = label_of(rule.unit),
                                 .period = {&period, 1},
                                 .percent = percent,
                                 .used = rule.told(most - std::min(j.decision->remaining, most)),
                                 .most = rule.told(most),
                                 .began_s = static_cast<uint64_t>(begins_ns[1] / kNsPerSec),
                                 .ends_s = static_cast<uint64_t>(begins_ns[2] / kNsPerSec)};
  ngx_str_t unit = str(notice.unit);
  ngx_str_t key = str(notice.key_hash);
  ngx_str_t name = rule.name;
  ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0,
                "quota \"%V\": key %V has used %uL of %uL %V, %ui %% were passed", &name, &key,
                notice.used, notice.most, &unit, static_cast<ngx_uint_t>(percent));
  tell_quota(*main_conf(r), notice);
}

}  // namespace

void tell_of_quotas(ngx_http_request_t* r, Charges& charges) noexcept {
  const std::span<ChargeResult> results = charges.results();
  for (size_t i = 0; i < results.size(); ++i) {
    const ChargeResult& j = results[i];
    const Rule& rule = j.rule();
    const unsigned percent = rule.warn == 0 || j.advisory ? 0 : reached(j);
    if (percent == 0) [[likely]] {
      continue;
    }
    const limit::Hash128& place = charges.charges()[i].hash;
    // Who has used it up at once is not told of the part before.
    const bool first = is_first(charges.table(), rule, place, percent);
    if (first && percent == kAll && rule.warn != kAll) {
      is_first(charges.table(), rule, place, rule.warn);
    }
    if (first) {
      tell(r, j, place.hi ^ j.bound->counter->salt.hi, percent);
    }
  }
}

}  // namespace penstock
