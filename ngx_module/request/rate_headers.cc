#include "ngx_module/request/rate_headers.h"

#include <algorithm>

#include "ngx_module/conf/text.h"
#include "ngx_module/request/headers.h"

namespace penstock {
namespace {

// How long until there is a unit again, if there is none; else until nothing is used any more.
int64_t effective_wait_ns(const ChargeResult& j, const Rule& rule) noexcept {
  if (rule.kind == RuleKind::kConcurrency && !j.exceeded) {
    return usual_wait_ns(*j.bound);
  }
  if (j.exceeded) {
    return j.decision->never() ? j.decision->reset_ns : j.decision->retry_after_ns;
  }
  if (j.decision->remaining > 0 || !is_bucket(j.bound->policy)) {
    return j.decision->reset_ns;
  }
  const limit::GcraPolicy& gcra = j.bound->policy.gcra;
  const uint64_t all_but_one = gcra.tolerance - gcra.interval;
  return std::max<int64_t>(
      1, j.decision->reset_ns - static_cast<int64_t>(all_but_one / limit::kTicksPerNs));
}

// A limit that is told of.
struct Shown {
  const ChargeResult* result;
  const Rule* rule;     // the same's
  ngx_str_t remaining;  // its digits, once they were written
};

bool says_more(const ChargeResult& j, const ChargeResult& least) noexcept {
  if (j.exceeded != least.exceeded) {
    return j.exceeded;
  }
  return j.exceeded ? j.decision->retry_after_ns > least.decision->retry_after_ns
                    : j.decision->remaining < least.decision->remaining;
}

// The limit of a unit that says most about what the caller may do next; nullptr if there is none.
const Shown* tightest(std::span<const Shown> shown, Unit unit) noexcept {
  const Shown* least = nullptr;
  for (const Shown& each : shown) {
    const ChargeResult& j = *each.result;
    if (each.rule->kind != RuleKind::kConcurrency && each.rule->unit == unit &&
        (least == nullptr || says_more(j, *least->result))) {
      least = &each;
    }
  }
  return least;
}

// Text that grows in one piece of memory and is cut into values.
class Values {
 public:
  explicit Values(char* memory) noexcept : text_(memory), start_(memory) {}
  Text& text() noexcept { return text_; }
  ngx_str_t cut() noexcept {
    const std::string_view s(start_, static_cast<size_t>(text_.at() - start_));
    start_ = text_.at();
    return str(s);
  }

 private:
  Text text_;
  const char* start_;
};

class Headers {
 public:
  Headers(ngx_http_request_t* r, RateHeaders& pushed) noexcept : r_(r), pushed_(pushed) {
    for (size_t i = 0; i < kMaxRateHeaders && pushed_[i] != nullptr; ++i) {
      pushed_[i]->hash = 0;  // Nginx passes it over
      pushed_[i] = nullptr;
    }
  }
  bool push(std::string_view key, ngx_str_t value) noexcept {
    pushed_[count_] = push_header(r_, key, value);
    return pushed_[count_++] != nullptr;
  }

 private:
  ngx_http_request_t* r_;
  RateHeaders& pushed_;
  size_t count_ = 0;
};

struct UnitHeaders {
  Unit unit;
  std::string_view limit, remaining, reset;
};

constexpr UnitHeaders kUnitHeaders[] = {
    {Unit::kRequests, "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
     "x-ratelimit-reset-requests"},
    {Unit::kTokens, "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens",
     "x-ratelimit-reset-tokens"},
};

bool push_unit(Headers& headers, Values& values, const UnitHeaders& names,
               std::span<const Shown> shown) noexcept {
  const Shown* least = tightest(shown, names.unit);
  if (least == nullptr) {
    return true;
  }
  const ChargeResult& j = *least->result;
  values.text().duration(j.decision->reset_ns);
  return headers.push(names.limit, least->rule->most) &&
         headers.push(names.remaining, least->remaining) && headers.push(names.reset, values.cut());
}

ngx_str_t write_policies(Values& values, std::span<const Shown> shown) noexcept {
  std::string_view comma;
  for (const Shown& each : shown) {
    values.text().raw(comma).raw(view(each.rule->header));
    comma = ", ";
  }
  return values.cut();
}

ngx_str_t write_state(Values& values, std::span<Shown> shown) noexcept {
  Text text = values.text();  // in registers meanwhile
  for (Shown& each : shown) {
    const ChargeResult& j = *each.result;
    if (&each != shown.data()) {
      text.literal(", ");
    }
    text.raw(view(each.rule->label));
    const char* const digits = text.at();
    text.number(each.rule->told(j.decision->remaining));
    each.remaining = str({digits, static_cast<size_t>(text.at() - digits)});
    text.literal(";t=").number(static_cast<uint64_t>(seconds_up(effective_wait_ns(j, *each.rule))));
  }
  values.text() = text;
  return values.cut();
}

// What everyone shares is nobody's own.
bool is_callers_own(const ChargeResult& j, const Tier* tier) noexcept {
  return tier != nullptr ? j.of_tier : j.limit->key.kind != Value::Kind::kConstant;
}

bool is_all_of(const Tier& tier, std::span<const Shown> shown) noexcept {
  return shown.size() == tier.rules.size() &&
         std::equal(shown.begin(), shown.end(), tier.rules.begin(),
                    [](const Shown& each, const Rule* rule) { return each.rule == rule; });
}

}  // namespace

int64_t usual_wait_ns(const Bound& bound) noexcept {
  constexpr int64_t kSecond = 1'000'000'000;
  const int64_t usual = bound.counter->usual_lease_ns / static_cast<int64_t>(bound.policy.limit);
  return std::clamp(usual, kSecond, 600 * kSecond);
}

bool push_rate_headers(ngx_http_request_t* r, const Tier* tier,
                       std::span<const ChargeResult> results, bool refused,
                       RateHeaders& pushed) noexcept {
  if (const ngx_uint_t on = loc_conf(r)->rate_headers;
      on == kRateHeadersNone || (on == kRateHeadersRefused && !refused)) {
    Headers(r, pushed);  // of a location that was redirected from
    return true;
  }
  Shown chosen[kMaxCharges];
  size_t count = 0;
  size_t room = 2 * (Text::kMaxDigits + 8);
  bool tokens = false;
  for (const ChargeResult& j : results) {
    if (!j.advisory && (refused ? j.exceeded : is_callers_own(j, tier))) {
      const Rule& rule = j.rule();
      chosen[count].result = &j;
      chosen[count++].rule = &rule;
      tokens = tokens || rule.unit == Unit::kTokens;
      room += rule.header.len + rule.label.len + 2 * Text::kMaxDigits + 8;
    }
  }
  if (count == 0) {
    return true;
  }
  const std::span shown(chosen, count);
  auto* memory = static_cast<char*>(ngx_pnalloc(r->pool, room));
  if (memory == nullptr) {
    return false;
  }
  Values values(memory);
  Headers headers(r, pushed);
  // Most often these are all the rules of the plan, whose list is ready.
  const bool whole_plan = tier != nullptr && !refused && is_all_of(*tier, shown);
  const ngx_str_t policies = whole_plan   ? tier->policies
                             : count == 1 ? shown[0].rule->header
                                          : write_policies(values, shown);
  const ngx_str_t state = write_state(values, shown);
  return headers.push("RateLimit-Policy", policies) && headers.push("RateLimit", state) &&
         push_unit(headers, values, kUnitHeaders[0], shown) &&
         (!tokens || push_unit(headers, values, kUnitHeaders[1], shown));
}

}  // namespace penstock
