// penstock_zone, penstock_tier and penstock_limit: read, checked, and bound to each other.
#include <algorithm>

#include "ngx_module/conf.h"
#include "ngx_module/rate.h"
#include "ngx_module/zone.h"

namespace penstock {
namespace {

char* const kError = static_cast<char*>(NGX_CONF_ERROR);

MainConf* main_of(ngx_conf_t* cf) noexcept {
  return static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_penstock_module));
}

ngx_str_t& arg(ngx_conf_t* cf, size_t i) noexcept {
  return static_cast<ngx_str_t*>(cf->args->elts)[i];
}

template <typename T>
T* find_named(const PoolArray<T*>& list, std::string_view name) noexcept {
  for (T* item : list) {
    if (view(item->name) == name) {
      return item;
    }
  }
  return nullptr;
}

// Names go into headers and messages as they are.
bool is_name(std::string_view name) noexcept {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

constexpr char kNameRule[] = "a name is 1 to 64 of a-z A-Z 0-9 - _ .";

// NAME=VALUE of a directive's arguments; false if `text` is not about NAME.
bool option(std::string_view text, std::string_view name, std::string_view& value) noexcept {
  if (text.size() <= name.size() || text.substr(0, name.size()) != name ||
      text[name.size()] != '=') {
    return false;
  }
  value = text.substr(name.size() + 1);
  return true;
}

template <typename... Args>
ngx_str_t print(ngx_pool_t* pool, const char* format, Args... args) noexcept {
  u_char text[512];
  const u_char* end = ngx_snprintf(text, sizeof text, format, args...);
  return copy(pool, {reinterpret_cast<char*>(text), static_cast<size_t>(end - text)});
}

struct RateTerms {
  std::string_view rate;
  std::string_view burst;
};

// Fills in what follows from the terms. `who` is "Plan free" or "Limit ip".
char* make_rule(ngx_conf_t* cf, const RateTerms& terms, ngx_str_t who, Rule& rule) noexcept {
  Rate rate;
  ngx_str_t rate_text = str(terms.rate);
  if (const char* remedy = parse_rate(terms.rate, rate); remedy != nullptr) {
    return refuse(cf, "invalid rate \"%V\": %s", &rate_text, remedy);
  }
  uint64_t burst = 0;
  if (!terms.burst.empty() && (!parse_number(terms.burst, limit::kMaxBurst, burst) || burst == 0)) {
    ngx_str_t text = str(terms.burst);
    return refuse(cf, "invalid burst \"%V\": the burst is how many may come at once, from 1 to %uL",
                  &text, limit::kMaxBurst);
  }
  auto gcra = limit::make_gcra(rate.amount, rate.period_ns, burst);
  if (!gcra) {
    return refuse(cf, "rate \"%V\": %s", &rate_text, gcra.error().message.c_str());
  }
  rule.gcra = *gcra;
  ngx_str_t word = str(rate.period_word);
  rule.terms = print(cf->pool, "%V burst=%uL", &rate_text, rule.gcra.burst);
  rule.sentence = print(cf->pool, "%V allows %uL request%s %s %V.", &who, rate.amount,
                        rate.amount == 1 ? "" : "s", rate.period_s == 3600 ? "an" : "a", &word);
  rule.policy = print(cf->pool, "\"%V\";q=%uL;w=%uL", &rule.name, rate.amount, rate.period_s);
  rule.label = print(cf->pool, ", \"%V\";r=", &rule.name);
  rule.file = cf->conf_file->file.name;
  rule.line = cf->conf_file->line;
  return rule.policy.data != nullptr && rule.label.data != nullptr &&
                 rule.refusal.prepare(cf->pool, view(rule.name), view(rule.sentence))
             ? NGX_CONF_OK
             : kError;
}

bool same_terms(const Rule& a, const Rule& b) noexcept {
  return a.gcra.interval == b.gcra.interval && a.gcra.burst == b.gcra.burst;
}

// The zone's counter of this name, made if there is none. nullptr: memory ran out, or another rule
// has the name (`other`).
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

// ---- the lines of a tier ----

char* read_tier_rate(ngx_conf_t* cf, Tier& tier) noexcept {
  RateTerms terms;
  std::string_view name;
  for (size_t i = 1; i < cf->args->nelts; ++i) {
    const std::string_view text = view(arg(cf, i));
    if (!option(text, "burst", terms.burst) && !option(text, "name", name)) {
      if (!terms.rate.empty()) {
        return refuse(cf, "unknown parameter \"%V\" of rate; it takes burst=N and name=NAME",
                      &arg(cf, i));
      }
      terms.rate = text;
    }
  }
  if (tier.rules.size() == kMaxTierRules) {
    return refuse(cf, "tier \"%V\" has more than %uz rates", &tier.name, kMaxTierRules);
  }
  auto* rule = make<Rule>(cf->pool);
  if (rule == nullptr) {
    return kError;
  }
  ngx_str_t given = str(name);
  rule->name = name.empty() ? print(cf->pool, tier.rules.empty() ? "%V-rate" : "%V-rate-%c",
                                    &tier.name, terms.rate.empty() ? '?' : terms.rate.back())
                            : given;
  if (!is_name(view(rule->name))) {
    return refuse(cf, "invalid name \"%V\": %s", &rule->name, kNameRule);
  }
  if (find_named(tier.rules, view(rule->name)) != nullptr) {
    return refuse(cf, "tier \"%V\" has two limits named \"%V\"; tell them apart by name=NAME",
                  &tier.name, &rule->name);
  }
  const ngx_str_t who = print(cf->pool, "Plan %V", &tier.name);
  if (make_rule(cf, terms, who, *rule) != NGX_CONF_OK ||
      tier.rules.push(cf->pool, rule) == nullptr) {
    return kError;
  }
  return NGX_CONF_OK;
}

char* read_tier_number(ngx_conf_t* cf, std::string_view what, int64_t least, int64_t most,
                       int64_t& number) noexcept {
  const std::string_view text = cf->args->nelts == 2 ? view(arg(cf, 1)) : "";
  const bool negative = !text.empty() && text.front() == '-';
  uint64_t value = 0;
  ngx_str_t name = str(what);
  if (!parse_number(text.substr(negative ? 1 : 0), INT32_MAX, value)) {
    return refuse(cf, "%V takes one whole number from %L to %L", &name, least, most);
  }
  number = negative ? -static_cast<int64_t>(value) : static_cast<int64_t>(value);
  if (number < least || number > most) {
    return refuse(cf, "%V takes one whole number from %L to %L", &name, least, most);
  }
  return NGX_CONF_OK;
}

char* read_tier_line(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& tier = *static_cast<Tier*>(conf);
  const std::string_view word = view(arg(cf, 0));
  int64_t number = 0;
  if (word == "rate") {
    return read_tier_rate(cf, tier);
  }
  if (word == "priority") {
    return read_tier_number(cf, word, -1000, 1000, tier.priority);
  }
  if (word == "weight") {
    char* const done = read_tier_number(cf, word, 1, 1'000'000, number);
    tier.weight = static_cast<uint64_t>(number);
    return done;
  }
  return refuse(
      cf, "unknown line \"%V\" in penstock_tier; this version knows rate, priority and weight",
      &arg(cf, 0));
}

char* join_policies(ngx_conf_t* cf, Tier& tier) noexcept {
  size_t size = 0;
  for (const Rule* rule : tier.rules) {
    size += rule->policy.len + 2;
  }
  tier.policies.data = static_cast<u_char*>(ngx_pnalloc(cf->pool, size + 1));
  if (tier.policies.data == nullptr) {
    return kError;
  }
  u_char* at = tier.policies.data;
  for (const Rule* rule : tier.rules) {
    at = at == tier.policies.data ? at : ngx_cpymem(at, ", ", 2);
    at = ngx_cpymem(at, rule->policy.data, rule->policy.len);
  }
  tier.policies.len = static_cast<size_t>(at - tier.policies.data);
  return NGX_CONF_OK;
}

// ---- the parts of a limit ----

struct LimitParts {
  std::string_view zone, key, tier, name;
  RateTerms terms;
};

char* read_limit_parts(ngx_conf_t* cf, LimitParts& parts) noexcept {
  for (size_t i = 1; i < cf->args->nelts; ++i) {
    const std::string_view text = view(arg(cf, i));
    for (size_t earlier = 1; earlier < i; ++earlier) {
      const std::string_view other = view(arg(cf, earlier));
      if (text.substr(0, text.find('=')) == other.substr(0, other.find('='))) {
        return refuse(cf, "parameter \"%V\" of penstock_limit comes twice", &arg(cf, i));
      }
    }
    if (!option(text, "zone", parts.zone) && !option(text, "key", parts.key) &&
        !option(text, "tier", parts.tier) && !option(text, "name", parts.name) &&
        !option(text, "rate", parts.terms.rate) && !option(text, "burst", parts.terms.burst)) {
      return refuse(
          cf,
          "unknown parameter \"%V\" of penstock_limit; it takes zone=, key=, and tier= or "
          "rate= with burst= and name=",
          &arg(cf, i));
    }
  }
  if (parts.zone.empty()) {
    return refuse(cf, "penstock_limit needs zone=NAME of a penstock_zone");
  }
  if (parts.key.empty()) {
    return refuse(cf,
                  "penstock_limit needs key=VALUE: whom to count, such as key=$binary_remote_addr");
  }
  if (parts.tier.empty() == parts.terms.rate.empty()) {
    return refuse(cf, "penstock_limit needs either tier=NAME or rate=RATE, such as rate=50r/s");
  }
  if (!parts.tier.empty() && (!parts.terms.burst.empty() || !parts.name.empty())) {
    return refuse(cf, "burst= and name= of a tier's limits stand in its penstock_tier block");
  }
  return NGX_CONF_OK;
}

char* bind_inline_rate(ngx_conf_t* cf, const LimitParts& parts, Limit& limit) noexcept {
  auto* rule = make<Rule>(cf->pool);
  if (rule == nullptr) {
    return kError;
  }
  // Without a name the key names it: key=$binary_remote_addr is "binary_remote_addr".
  std::string_view name = parts.name;
  if (name.empty()) {
    name = parts.key;
    name.remove_prefix(name.front() == '$' ? 1 : 0);
  }
  rule->name = str(name);
  if (!is_name(name)) {
    return refuse(cf, "invalid name \"%V\": %s; add name=NAME", &rule->name, kNameRule);
  }
  if (make_rule(cf, parts.terms, print(cf->pool, "Limit %V", &rule->name), *rule) != NGX_CONF_OK) {
    return kError;
  }
  const Rule* other = nullptr;
  limit.counter = counter_of(cf->pool, *limit.zone, *rule, other);
  if (other != nullptr) {
    ngx_str_t terms = other->terms;
    ngx_str_t file = other->file;
    return refuse(
        cf,
        "limit \"%V\" has other terms (%V) in %V:%ui; give this one another name=, or the "
        "same rate and burst",
        &rule->name, &terms, &file, other->line);
  }
  return limit.counter == nullptr ? kError : NGX_CONF_OK;
}

// Every tier's counters in the limit's zone.
ngx_int_t bind_tiers(ngx_conf_t* cf, const MainConf& main, Limit& limit) noexcept {
  for (const Tier* tier : main.tiers) {
    PoolArray<Counter*> counters;
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
      if (counter == nullptr || counters.push(cf->pool, counter) == nullptr) {
        return NGX_ERROR;
      }
    }
    if (limit.tier_counters.push(cf->pool, counters) == nullptr) {
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

}  // namespace

char* read_zone(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& main = *static_cast<MainConf*>(conf);
  ngx_str_t& name = arg(cf, 1);
  if (!is_name(view(name))) {
    return refuse(cf, "invalid zone name \"%V\": %s", &name, kNameRule);
  }
  if (cf->args->nelts > 3) {
    return refuse(cf,
                  "unknown parameter \"%V\" of penstock_zone; this version takes a name and a size",
                  &arg(cf, 3));
  }
  const ssize_t size = ngx_parse_size(&arg(cf, 2));
  constexpr ssize_t kMaxZone = ssize_t{1} << 40;
  if (size == NGX_ERROR || static_cast<size_t>(size) < 8 * ngx_pagesize || size > kMaxZone) {
    return refuse(cf, "invalid size \"%V\" of zone \"%V\": give %uzk or more; 1m holds 32000 keys",
                  &arg(cf, 2), &name, 8 * ngx_pagesize / 1024);
  }
  if (find_named(main.zones, view(name)) != nullptr) {
    return refuse(cf, "zone \"%V\" is defined twice", &name);
  }
  auto* zone = make<Zone>(cf->pool);
  if (zone == nullptr || main.zones.push(cf->pool, zone) == nullptr) {
    return kError;
  }
  zone->name = name;
  zone->shm =
      ngx_shared_memory_add(cf, &name, static_cast<size_t>(size), &ngx_http_penstock_module);
  if (zone->shm == nullptr) {
    return kError;
  }
  if (zone->shm->data != nullptr) {
    return refuse(cf, "zone \"%V\" is defined twice", &name);
  }
  zone->shm->data = zone;
  zone->shm->init = init_zone;
  return NGX_CONF_OK;
}

char* read_tier(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& main = *static_cast<MainConf*>(conf);
  if (!is_name(view(arg(cf, 1)))) {
    return refuse(cf, "invalid tier name \"%V\": %s", &arg(cf, 1), kNameRule);
  }
  if (find_named(main.tiers, view(arg(cf, 1))) != nullptr) {
    return refuse(cf, "tier \"%V\" is defined twice", &arg(cf, 1));
  }
  auto* tier = make<Tier>(cf->pool);
  if (tier == nullptr || main.tiers.push(cf->pool, tier) == nullptr) {
    return kError;
  }
  tier->name = arg(cf, 1);
  const ngx_conf_t saved = *cf;
  cf->handler = read_tier_line;
  cf->handler_conf = reinterpret_cast<char*>(tier);
  char* const done = ngx_conf_parse(cf, nullptr);
  *cf = saved;
  return done == NGX_CONF_OK ? join_policies(cf, *tier) : done;
}

char* read_limit(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  MainConf& main = *main_of(cf);
  LimitParts parts;
  if (read_limit_parts(cf, parts) != NGX_CONF_OK) {
    return kError;
  }
  if (loc.limits.size() == kMaxLimits) {
    return refuse(cf, "more than %uz penstock_limit lines in one place", kMaxLimits);
  }
  auto* limit = make<Limit>(cf->pool);
  if (limit == nullptr) {
    return kError;
  }
  limit->file = cf->conf_file->file.name;
  limit->line = cf->conf_file->line;
  limit->zone = find_named(main.zones, parts.zone);
  if (limit->zone == nullptr) {
    ngx_str_t name = str(parts.zone);
    return refuse(cf,
                  "zone \"%V\" is not known here; put \"penstock_zone %V 64m;\" above, in http {}",
                  &name, &name);
  }
  if (!loc.limits.empty() && loc.limits[0]->zone != limit->zone) {
    return refuse(
        cf,
        "zone \"%V\" differs from \"%V\" above: limits that stand together are charged together, "
        "in one zone",
        &limit->zone->name, &loc.limits[0]->zone->name);
  }
  if (compile_value(cf, str(parts.key), limit->key) != NGX_CONF_OK) {
    return kError;
  }
  if (!parts.tier.empty() ? compile_value(cf, str(parts.tier), limit->tier) != NGX_CONF_OK
                          : bind_inline_rate(cf, parts, *limit) != NGX_CONF_OK) {
    return kError;
  }
  if (limit->zone->limits.push(cf->pool, limit) == nullptr ||
      main.limits.push(cf->pool, limit) == nullptr || loc.limits.push(cf->pool, limit) == nullptr) {
    return kError;
  }
  return NGX_CONF_OK;
}

ngx_int_t bind_limits(ngx_conf_t* cf) noexcept {
  MainConf& main = *main_of(cf);
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
  return NGX_OK;
}

}  // namespace penstock
