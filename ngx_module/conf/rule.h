// Rule: one limit's terms, and everything that is said of it, made when the configuration is read.
#pragma once

#include "ngx_module/nginx.h"

#include "ngx_module/conf/rate.h"
#include "ngx_module/conf/refusal.h"
#include "shared/limit/policy.h"

namespace penstock {

// The line that it was written as: what a caller is told depends on it.
enum class RuleKind : uint8_t { kRate, kQuota, kConcurrency };

// Its terms as they were written. Of rate, quota and concurrency, one is given.
struct Terms {
  std::string_view rate, quota, concurrency;
  std::string_view burst, algorithm;  // of a rate
  std::string_view warn;              // of a quota

  // Takes one argument, NAME=VALUE; false if it is none of these.
  bool take(std::string_view argument) noexcept;
  unsigned given() const noexcept {
    return (rate.empty() ? 0u : 1u) + (quota.empty() ? 0u : 1u) + (concurrency.empty() ? 0u : 1u);
  }
};

// The name is a rule's identity in a zone: the counters are found by it, so it survives reloads and
// is shared by every place that uses it.
struct Rule {
  ngx_str_t name{};  // free-rate
  RuleKind kind = RuleKind::kRate;
  Unit unit = Unit::kRequests;
  limit::Policy policy;
  std::string_view algorithm;      // token_bucket
  uint64_t amount = 0;             // as written: 10 of 10r/m
  const Period* period = nullptr;  // of a concurrency: none
  unsigned warn = 0;               // of a quota: a word is said at so many percent; 0: at none
  ngx_str_t terms{};               // 10r/m burst=5, for messages
  ngx_str_t allows{};              // Plan free allows 10 requests a minute.
  ngx_str_t sentence{};            // the same, and what is wrong when it refuses
  ngx_str_t header{};              // "free-rate";q=10;w=60
  ngx_str_t label{};               // "free-rate";r=
  ngx_str_t most{};                // what may come at once: 5
  Refusal refusal;                 // what it says when it alone refuses
  ngx_str_t file{};                // where it stands
  ngx_uint_t line = 0;

  uint64_t period_s() const noexcept { return period == nullptr ? 0 : period->seconds; }
  uint64_t scale() const noexcept { return unit == Unit::kGpu ? scale_of(unit) : 1; }
  // What callers are told of a count: whole units, as the rule was written.
  uint64_t told(uint64_t counted) const noexcept {
    return unit == Unit::kGpu ? counted / scale_of(unit) : counted;
  }
  // error.code of the contract, section 4.
  std::string_view code() const noexcept;
};

// Reads the terms into `rule`, whose name is set; `who` is "Plan free" or "Limit ip". Refuses what
// cannot be kept, at the line being read.
char* make_rule(ngx_conf_t* cf, const Terms& terms, std::string_view who, Rule& rule) noexcept;

// What a rule without a name is called, after its tier: free-rate, free-rate-tokens-d,
// free-quota-M, free-concurrency. The first rate of a tier is just its rate.
ngx_str_t default_name(ngx_pool_t* pool, std::string_view tier, const Terms& terms,
                       bool first_rate) noexcept;

// Makes the refusal ready; `docs` may be empty.
bool finish_rule(ngx_pool_t* pool, Rule& rule, std::string_view docs) noexcept;

// Whether two rules of one name may share a counter.
bool same_terms(const Rule& a, const Rule& b) noexcept;

}  // namespace penstock
