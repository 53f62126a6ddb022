// penstock_zone, penstock_limit and penstock_cost: read, checked, and bound to each other.
#include <algorithm>

#include "ngx_module/conf/conf.h"
#include "ngx_module/request/body.h"
#include "ngx_module/zone/zone.h"

namespace penstock {
namespace {

constexpr ngx_int_t kMostImageCost = 1'000'000'000;

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

// ---- the parts of a limit ----

struct LimitParts {
  std::string_view zone, key, tier, name, action, max_delay, degrade_to, dry_run, stage, pages;
  Terms terms;
};

char* read_limit_parts(ngx_conf_t* cf, LimitParts& parts) noexcept {
  for (size_t i = 1; i < cf->args->nelts; ++i) {
    const std::string_view text = view(arg(cf, i));
    if (char* const lacking = check_value(cf, i); lacking != NGX_CONF_OK) {
      return lacking;
    }
    for (size_t earlier = 1; earlier < i; ++earlier) {
      const std::string_view other = view(arg(cf, earlier));
      if (text.substr(0, text.find('=')) == other.substr(0, other.find('='))) {
        return refuse(cf, "parameter \"%V\" of penstock_limit comes twice", &arg(cf, i));
      }
    }
    if (!option(text, "zone", parts.zone) && !option(text, "key", parts.key) &&
        !option(text, "tier", parts.tier) && !option(text, "name", parts.name) &&
        !option(text, "action", parts.action) && !option(text, "max_delay", parts.max_delay) &&
        !option(text, "degrade_to", parts.degrade_to) && !option(text, "dry_run", parts.dry_run) &&
        !option(text, "stage", parts.stage) && !option(text, "pages", parts.pages) &&
        !parts.terms.take(text)) {
      return refuse(
          cf,
          "unknown parameter \"%V\" of penstock_limit; it takes zone=, key=, tier= or one "
          "of rate=, quota=, concurrency= (with burst=, algorithm=, name=), and action=, "
          "max_delay=, degrade_to=, dry_run=, stage=, pages=; or off alone",
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
  if (parts.terms.given() + (parts.tier.empty() ? 0 : 1) != 1) {
    return refuse(cf,
                  "penstock_limit needs one of tier=NAME, rate=RATE, quota=RATE and concurrency=N, "
                  "such as rate=50r/s");
  }
  if (!parts.tier.empty() &&
      (!parts.terms.burst.empty() || !parts.terms.algorithm.empty() || !parts.name.empty())) {
    return refuse(
        cf, "burst=, algorithm= and name= of a tier's limits stand in its penstock_tier block");
  }
  return NGX_CONF_OK;
}

// ---- what being over it means ----

char* read_delay(ngx_conf_t* cf, const LimitParts& parts, Limit& limit) noexcept {
  if (limit.action != Action::kDelay) {
    return parts.max_delay.empty() ? NGX_CONF_OK : refuse(cf, "max_delay= belongs to action=delay");
  }
  ngx_str_t text = str(parts.max_delay);
  const ngx_int_t max = text.len == 0 ? NGX_ERROR : ngx_parse_time(&text, 0);
  constexpr ngx_int_t kDayMs = 86'400'000;
  if (max == NGX_ERROR || max == 0 || max > kDayMs) {
    return refuse(cf,
                  "action=delay needs max_delay=TIME, the longest that a request is held back, "
                  "such as max_delay=5s; at most a day");
  }
  limit.max_delay = static_cast<ngx_msec_t>(max);
  return NGX_CONF_OK;
}

// It becomes a parameter's name in Penstock-Degraded (RFC 9651, 3.1.2).
bool is_degrade_field(std::string_view field) noexcept {
  return is_name(field) && field.front() >= 'a' && field.front() <= 'z' &&
         std::none_of(field.begin(), field.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
}

// It goes into JSON and into a header's string as it is: meta-llama/Llama-3.1-8B, 64, 1024x1024.
bool is_degrade_value(std::string_view value) noexcept {
  return !value.empty() && value.size() <= kMaxDegradeValue &&
         std::all_of(value.begin(), value.end(),
                     [](char c) { return c > ' ' && c <= '~' && c != '"' && c != '\\'; });
}

char* read_degrade(ngx_conf_t* cf, const LimitParts& parts, Limit& limit) noexcept {
  if (limit.action != Action::kDegrade) {
    return parts.degrade_to.empty() ? NGX_CONF_OK
                                    : refuse(cf, "degrade_to= belongs to action=degrade");
  }
  const size_t equals = parts.degrade_to.find('=');
  const std::string_view field = parts.degrade_to.substr(0, equals);
  if (equals == std::string_view::npos || !is_degrade_field(field) ||
      !is_degrade_value(parts.degrade_to.substr(equals + 1))) {
    return refuse(
        cf,
        "action=degrade needs degrade_to=FIELD=VALUE, what to run instead, such as "
        "degrade_to=model=small or degrade_to=max_tokens=64; a field is 1 to 64 of a-z 0-9 "
        "- _ . and begins with a letter, a value 1 to %uz visible characters without "
        "quotes or backslashes",
        kMaxDegradeValue);
  }
  limit.degrade_field = str(field);
  limit.degrade_value = str(parts.degrade_to.substr(equals + 1));
  return NGX_CONF_OK;
}

char* read_action(ngx_conf_t* cf, const LimitParts& parts, Limit& limit) noexcept {
  if (parts.action == "delay") {
    limit.action = Action::kDelay;
  } else if (parts.action == "degrade") {
    limit.action = Action::kDegrade;
  } else if (!parts.action.empty() && parts.action != "reject") {
    ngx_str_t text = str(parts.action);
    return refuse(cf, "unknown action \"%V\": this version knows reject, delay and degrade", &text);
  }
  if (!parts.dry_run.empty() && parts.dry_run != "on" && parts.dry_run != "off") {
    return refuse(cf, "dry_run is on or off");
  }
  limit.dry_run = parts.dry_run == "on";
  if (!parts.pages.empty() && parts.pages != "on" && parts.pages != "off") {
    return refuse(cf, "pages is on or off");
  }
  limit.pages = parts.pages == "on";
  if (!parts.stage.empty() && parts.stage != "preaccess" && parts.stage != "access") {
    return refuse(cf, "stage is preaccess or access (after auth_request and the like)");
  }
  limit.stage = parts.stage == "access" ? Stage::kAccess : Stage::kPreaccess;
  return read_delay(cf, parts, limit) == NGX_CONF_OK ? read_degrade(cf, parts, limit) : kConfError;
}

// ---- counters ----

bool is_bucket(const Rule& rule) noexcept {
  return rule.policy.algorithm == limit::Algorithm::gcra;
}

// False when memory ran out.
bool bind(ngx_pool_t* pool, const Counter& counter, const Limit& limit, Bounds& bounds) noexcept {
  Bound bound{&counter, counter.rule->policy};
  if (limit.action == Action::kDelay && is_bucket(*counter.rule)) {
    limit::allow_delay(bound.policy.gcra, limit.max_delay * uint64_t{1'000'000});
  }
  bounds.reckoned = bounds.reckoned || counter.rule->unit != Unit::kRequests;
  bounds.leases = bounds.leases || counter.rule->kind == RuleKind::kConcurrency;
  return bounds.all.push(pool, bound) != nullptr;
}

char* bind_inline_rule(ngx_conf_t* cf, const LimitParts& parts, Limit& limit) noexcept {
  auto* rule = make<Rule>(cf->pool);
  if (rule == nullptr) {
    return kConfError;
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
  const ngx_str_t who = print(cf->pool, "Limit %V", &rule->name);
  if (make_rule(cf, parts.terms, view(who), *rule) != NGX_CONF_OK) {
    return kConfError;
  }
  if (limit.action == Action::kDelay && !is_bucket(*rule)) {
    return refuse(cf,
                  "action=delay needs a rate by token_bucket or leaky_bucket: a window tells "
                  "nobody when its turn is");
  }
  const Rule* other = nullptr;
  const Counter* counter = counter_of(cf->pool, *limit.zone, *rule, other);
  if (other != nullptr) {
    ngx_str_t terms = other->terms;
    ngx_str_t file = other->file;
    return refuse(
        cf,
        "limit \"%V\" has other terms (%V) in %V:%ui; give this one another name=, or the "
        "same terms",
        &rule->name, &terms, &file, other->line);
  }
  if (counter == nullptr || !bind(cf->pool, *counter, limit, limit.bounds)) {
    return kConfError;
  }
  return counter->rule != rule || main_conf(cf)->rules.push(cf->pool, rule) != nullptr ? NGX_CONF_OK
                                                                                       : kConfError;
}

// Whether two limits of a location would charge one counter twice for one key.
bool counts_the_same(const Limit& other, const Limit& limit, const LimitParts& parts) noexcept {
  if (view(other.key_text) != parts.key) {
    return false;
  }
  return parts.tier.empty() ? other.tier.kind == Value::Kind::kNone &&
                                  other.bounds[0].counter == limit.bounds[0].counter
                            : view(other.tier_text) == parts.tier;
}

// A bucket that some delay and others don't is judged by all with the longest delay in mind.
void spread_delays(const MainConf& main) noexcept {
  const auto each_bound = [&](const auto& act) noexcept {
    for (Limit* limit : main.limits) {
      for (Bound& bound : limit->bounds.all) {
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

char* read_zone(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& main = *static_cast<MainConf*>(conf);
  ngx_str_t& name = arg(cf, 1);
  if (!is_name(view(name))) {
    return refuse(cf, "invalid zone name \"%V\": %s", &name, kNameRule);
  }
  std::string_view file;
  for (size_t i = 3; i < cf->args->nelts; ++i) {
    if (!file.empty()) {
      return refuse(cf, "parameter \"%V\" of penstock_zone is one too many: file=PATH comes once",
                    &arg(cf, i));
    }
    if (!option(view(arg(cf, i)), "file", file) || file.empty()) {
      return refuse(cf,
                    "unknown parameter \"%V\" of penstock_zone; this version takes a name, a size "
                    "and file=PATH",
                    &arg(cf, i));
    }
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
    return kConfError;
  }
  zone->name = name;
  zone->conf_file = cf->conf_file->file.name;
  zone->conf_line = cf->conf_file->line;
  if (!file.empty()) {
    zone->file = copy(cf->pool, file);
    if (zone->file.data == nullptr || ngx_conf_full_name(cf->cycle, &zone->file, 0) != NGX_OK) {
      return kConfError;
    }
  }
  zone->shm =
      ngx_shared_memory_add(cf, &name, static_cast<size_t>(size), &ngx_http_penstock_module);
  if (zone->shm == nullptr) {
    return kConfError;
  }
  if (zone->shm->data != nullptr) {
    return refuse(cf, "zone \"%V\" is defined twice", &name);
  }
  zone->shm->data = zone;
  zone->shm->init = init_zone;
  return NGX_CONF_OK;
}

char* read_limit(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  MainConf& main = *main_conf(cf);
  const bool off = cf->args->nelts == 2 && view(arg(cf, 1)) == "off";
  if (loc.limits_off || (off && !loc.limits.empty())) {
    return refuse(cf,
                  "\"penstock_limit off\" ends what is inherited, and stands alone in its place");
  }
  if (off) {
    loc.limits_off = true;
    return NGX_CONF_OK;
  }
  LimitParts parts;
  if (read_limit_parts(cf, parts) != NGX_CONF_OK) {
    return kConfError;
  }
  if (loc.limits.size() == kMaxLimits) {
    return refuse(cf, "more than %uz penstock_limit lines in one place", kMaxLimits);
  }
  auto* limit = make<Limit>(cf->pool);
  if (limit == nullptr) {
    return kConfError;
  }
  limit->file = cf->conf_file->file.name;
  limit->line = cf->conf_file->line;
  limit->server = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);
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
  if (read_action(cf, parts, *limit) != NGX_CONF_OK ||
      compile_value(cf, str(parts.key), limit->key) != NGX_CONF_OK) {
    return kConfError;
  }
  if (!parts.tier.empty() ? compile_value(cf, str(parts.tier), limit->tier) != NGX_CONF_OK
                          : bind_inline_rule(cf, parts, *limit) != NGX_CONF_OK) {
    return kConfError;
  }
  for (const Limit* other : loc.limits) {
    if (counts_the_same(*other, *limit, parts)) {
      return refuse(cf,
                    "this limit counts the same key under the same name as the one in line %ui: "
                    "each request would be charged twice; remove one, or give it another name=",
                    other->line);
    }
  }
  limit->key_text = str(parts.key);
  limit->tier_text = str(parts.tier);
  loc.later = loc.later || limit->stage == Stage::kAccess;
  loc.degrades = loc.degrades || limit->action == Action::kDegrade;
  if (limit->zone->limits.push(cf->pool, limit) == nullptr ||
      main.limits.push(cf->pool, limit) == nullptr || loc.limits.push(cf->pool, limit) == nullptr) {
    return kConfError;
  }
  return NGX_CONF_OK;
}

char* read_cost(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  Unit unit = Unit::kRequests;
  if (!parse_unit(view(arg(cf, 1)), unit)) {
    return refuse(cf,
                  "invalid unit \"%V\" of penstock_cost: it is r, t (model tokens) or gs (GPU "
                  "seconds)",
                  &arg(cf, 1));
  }
  for (const CostFormula* cost : loc.costs) {
    if (cost->unit == unit) {
      return refuse(cf, "penstock_cost %V stands here twice", &arg(cf, 1));
    }
  }
  auto formula = limit::Formula::parse(view(arg(cf, 2)));
  if (!formula) {
    return refuse(cf, "invalid formula \"%V\": %s", &arg(cf, 2), formula.error().message.c_str());
  }
  if (formula->names().empty() && !(formula->evaluate({}) >= 0)) {
    return refuse(cf, "invalid formula \"%V\": a cost is a number of at least 0, such as 1",
                  &arg(cf, 2));
  }
  for (const std::string_view name : formula->names()) {
    if (!want_body_field(cf, name)) {
      return kConfError;
    }
  }
  void* memory = ngx_palloc(cf->pool, sizeof(CostFormula));
  if (memory == nullptr ||
      loc.costs.push(cf->pool, new (memory) CostFormula{unit, *formula}) == nullptr) {
    return kConfError;
  }
  return NGX_CONF_OK;
}

char* read_image_cost(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  const ngx_str_t& text = arg(cf, 1);
  if (loc.image_cost != NGX_CONF_UNSET_UINT) {
    return const_cast<char*>("is duplicate");
  }
  const ngx_int_t tokens = text.len > 1 && text.data[text.len - 1] == 't'
                               ? ngx_atoi(text.data, text.len - 1)
                               : NGX_ERROR;
  if (tokens == NGX_ERROR || tokens > kMostImageCost) {
    return refuse(
        cf,
        "invalid cost \"%V\" of penstock_image_cost: it is a number of model tokens, such "
        "as 1000t, and at most %it",
        &text, kMostImageCost);
  }
  loc.image_cost = static_cast<ngx_uint_t>(tokens);
  return NGX_CONF_OK;
}

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
