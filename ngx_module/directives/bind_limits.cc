#include "ngx_module/directives/bind_limits.h"

#include <algorithm>

namespace penstock {

Counter* counter_of(ngx_pool_t* pool, Zone& zone, const Rule& rule, const Rule*& other) noexcept {
  other = nullptr;
  for (Counter* counter : zone.counters) {
    if (view(counter->rule->name) == view(rule.name)) {
      if (same_terms(*counter->rule, rule)) {
        return counter;
      }
      other = counter->rule;
      return nullptr;
    }
  }
  auto* counter = make<Counter>(pool);
  if (counter == nullptr || zone.counters.push(pool, counter) == nullptr) {
    return nullptr;
  }
  counter->rule = &rule;
  return counter;
}

bool is_bucket(const Rule& rule) noexcept {
  return rule.policy.algorithm == limit::Algorithm::gcra;
}

const char* cannot_share(const Rule& rule) noexcept {
  if (!is_bucket(rule)) {
    return nullptr;
  }
  const uint64_t interval = rule.policy.gcra.interval;
  constexpr uint64_t kParts = 200;
  if (limit::shared_interval(rule.policy.gcra) - interval > interval / kParts) {
    return "it is faster than hosts can count together to half a percent, about 80000 a second: "
           "add shared=off to the penstock_limit, with each host's part of the rate";
  }
  return nullptr;
}

bool bind(ngx_pool_t* pool, Counter& counter, const Limit& limit, Bounds& bounds) noexcept {
  Bound bound{&counter, counter.rule->policy};
  if (limit.shared) {
    limit::make_shared(bound.policy, *limit.zone->lessor);
  }
  counter.own = bound;
  counter.bound = true;
  counter.shared = limit.shared;
  if (limit.action == Action::kDelay && is_bucket(*counter.rule)) {
    limit::allow_delay(bound.policy.gcra, limit.max_delay * uint64_t{1'000'000});
  }
  bounds.reckoned = bounds.reckoned || counter.rule->unit != Unit::kRequests;
  bounds.leases = bounds.leases || counter.rule->kind == RuleKind::kConcurrency;
  return bounds.all.push(pool, bound) != nullptr;
}

namespace {

// A bucket that some delay and others don't is judged by all with the longest delay in mind.
void spread_delays(const MainConf& main) noexcept {
  const auto each_bound = [&](const auto& act) noexcept {
    for (Limit* limit : main.limits) {
      for (Bound& bound : limit->bounds.all) {
        act(bound);
      }
      for (Bound& bound : limit->verified.all) {
        act(bound);
      }
      for (Bounds& bounds : limit->tier_bounds) {
        for (Bound& bound : bounds.all) {
          act(bound);
        }
      }
    }
  };
  each_bound([](const Bound& bound) noexcept {
    uint64_t& most = bound.counter->most_delay;
    most = std::max(most, bound.policy.gcra.delay);
  });
  each_bound(
      [](Bound& bound) noexcept { bound.policy.gcra.most_delay = bound.counter->most_delay; });
}

// Every tier's counters in the limit's zone.
ngx_int_t bind_tiers(ngx_conf_t* cf, const MainConf& main, Limit& limit) noexcept {
  for (const Tier* tier : main.tiers) {
    Bounds bounds;
    for (const Rule* rule : tier->rules) {
      const Rule* other = nullptr;
      Counter* counter = counter_of(cf->pool, *limit.zone, *rule, other);
      if (other != nullptr) {
        ngx_str_t name = rule->name;
        ngx_str_t file = other->file;
        return refuse_at(cf, rule->file, rule->line,
                         "limit \"%V\" has other terms in %V:%ui; rename one of them by name=NAME",
                         &name, &file, other->line);
      }
      if (const char* why = limit.shared ? cannot_share(*rule) : nullptr; why != nullptr) {
        ngx_str_t name = rule->name;
        return refuse_at(cf, limit.file, limit.line, "limit \"%V\" of a shared zone: %s", &name,
                         why);
      }
      if (counter != nullptr && counter->bound && counter->shared != limit.shared) {
        return refuse_at(cf, limit.file, limit.line, kSharedElsewhere, &counter->rule->name);
      }
      if (counter == nullptr || !bind(cf->pool, *counter, limit, bounds)) {
        return NGX_ERROR;
      }
    }
    if (limit.tier_bounds.push(cf->pool, bounds) == nullptr) {
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

// How many slots one caller takes in the zone at most: all of its counters in use.
uint64_t slots_of_a_caller(const Zone& zone) noexcept {
  uint64_t slots = 0;
  for (const Counter* counter : zone.counters) {
    const limit::Policy& policy = counter->rule->policy;
    slots += policy.algorithm == limit::Algorithm::sliding_log ? policy.limit : 1;
  }
  return slots;
}

// Half of a zone's slots can be live before the first key finds none.
void warn_of_small_zones(ngx_conf_t* cf, const MainConf& main) noexcept {
  constexpr uint64_t kLeastCallers = 100;
  for (const Zone* zone : main.zones) {
    const uint64_t each = slots_of_a_caller(*zone);
    const uint64_t room = zone->shm->shm.size / 32;
    if (each == 0 || room / each >= kLeastCallers) {
      continue;
    }
    ngx_str_t name = zone->name;
    warn_at(cf, zone->conf_file, zone->conf_line,
            "zone \"%V\" is too small for its limits: %uL callers fill it, and others are then "
            "refused with 503; give it %uLk or more",
            &name, room / each, each * kLeastCallers * 32 / 1024 + 1);
  }
}

}  // namespace

ngx_int_t bind_limits(ngx_conf_t* cf) noexcept {
  MainConf& main = *main_conf(cf);
  for (Rule* rule : main.rules) {
    if (!finish_rule(cf->pool, *rule, view(main.docs))) {
      return NGX_ERROR;
    }
  }
  for (Limit* limit : main.limits) {
    if (limit->tier.kind == Value::Kind::kNone) {
      continue;
    }
    if (limit->tier.kind == Value::Kind::kConstant &&
        find_named(main.tiers, view(limit->tier.constant)) == nullptr) {
      return refuse_at(
          cf, limit->file, limit->line,
          "tier \"%V\" is not defined; add \"penstock_tier %V { rate 10r/m; }\" in http {}",
          &limit->tier.constant, &limit->tier.constant);
    }
    if (bind_tiers(cf, main, *limit) != NGX_OK) {
      return NGX_ERROR;
    }
  }
  spread_delays(main);
  warn_of_small_zones(cf, main);
  return NGX_OK;
}

}  // namespace penstock
