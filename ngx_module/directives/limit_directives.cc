#include "ngx_module/directives/limit_directives.h"

#include <algorithm>

#include "ngx_module/conf/conf.h"
#include "ngx_module/conf/text.h"
#include "ngx_module/directives/bind_limits.h"
#include "shared/challenge/digest.h"

namespace penstock {
namespace {

// ---- the parts of a limit ----

struct LimitParts {
  std::string_view zone, key, tier, name, action, max_delay, degrade_to, verified, dry_run, stage,
      pages, shared;
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
        !option(text, "verified", parts.verified) && !option(text, "stage", parts.stage) &&
        !option(text, "pages", parts.pages) && !option(text, "shared", parts.shared) &&
        !parts.terms.take(text)) {
      return refuse(
          cf,
          "unknown parameter \"%V\" of penstock_limit; it takes zone=, key=, tier= or one "
          "of rate=, quota=, concurrency= (with burst=, algorithm=, warn=, name=), and action=, "
          "max_delay=, degrade_to=, verified=, dry_run=, stage=, pages=, shared=; or off alone",
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
  limit.to_earlier = parts.degrade_to == "earlier";
  if (limit.to_earlier) {
    return NGX_CONF_OK;
  }
  const size_t equals = parts.degrade_to.find('=');
  const std::string_view field = parts.degrade_to.substr(0, equals);
  if (equals == std::string_view::npos || !is_degrade_field(field) ||
      !is_degrade_value(parts.degrade_to.substr(equals + 1))) {
    return refuse(
        cf,
        "action=degrade needs degrade_to=FIELD=VALUE, what to run instead, such as "
        "degrade_to=model=small or degrade_to=max_tokens=64, or degrade_to=earlier, an answer that "
        "was kept; a field is 1 to 64 of a-z 0-9 "
        "- _ . and begins with a letter, a value 1 to %uz visible characters without "
        "quotes or backslashes",
        kMaxDegradeValue);
  }
  limit.degrade_field = str(field);
  limit.degrade_value = str(parts.degrade_to.substr(equals + 1));
  return NGX_CONF_OK;
}

// The second limit is of whoever has shown a pass.
char* check_challenge(ngx_conf_t* cf, const LimitParts& parts, const Limit& limit) noexcept {
  if (limit.action != Action::kChallenge) {
    return parts.verified.empty() ? NGX_CONF_OK
                                  : refuse(cf, "verified= belongs to action=challenge");
  }
  if (parts.verified.empty()) {
    return refuse(cf,
                  "action=challenge needs verified=RATE, the limit of those who have solved a "
                  "challenge, such as verified=50r/h");
  }
  if ((parts.terms.rate.empty() && parts.terms.quota.empty()) || parts.key == "$penstock_model") {
    return refuse(cf,
                  "action=challenge needs a rate= or a quota= of its own, by a key that tells who "
                  "asks, such as key=$penstock_net rate=10r/h");
  }
  if (!challenge::can_digest()) {
    return refuse(cf, "action=challenge needs SHA-256, HMAC and PBKDF2 of OpenSSL's libcrypto");
  }
  if (limit.pages) {
    return refuse(cf,
                  "pages=on does not go with action=challenge: the page that takes the answers "
                  "would itself ask for one");
  }
  return NGX_CONF_OK;
}

char* read_action(ngx_conf_t* cf, const LimitParts& parts, Limit& limit) noexcept {
  if (parts.action == "delay") {
    limit.action = Action::kDelay;
  } else if (parts.action == "degrade") {
    limit.action = Action::kDegrade;
  } else if (parts.action == "challenge") {
    limit.action = Action::kChallenge;
  } else if (!parts.action.empty() && parts.action != "reject") {
    ngx_str_t text = str(parts.action);
    return refuse(cf,
                  "unknown action \"%V\": this version knows reject, delay, degrade and "
                  "challenge",
                  &text);
  }
  if (!parts.dry_run.empty() && parts.dry_run != "on" && parts.dry_run != "off") {
    return refuse(cf, "dry_run is on or off");
  }
  limit.dry_run = parts.dry_run == "on";
  if (!parts.pages.empty() && parts.pages != "on" && parts.pages != "off") {
    return refuse(cf, "pages is on or off");
  }
  limit.pages = parts.pages == "on";
  if (!parts.shared.empty() && parts.shared != "on" && parts.shared != "off") {
    return refuse(cf, "shared is on or off");
  }
  if (parts.shared == "on" && limit.zone->sharing == nullptr) {
    return refuse(cf,
                  "shared=on needs a zone that hosts share: add redis=HOST:PORT to the "
                  "penstock_zone");
  }
  limit.shared = limit.zone->sharing != nullptr && parts.shared != "off";
  if (!parts.stage.empty() && parts.stage != "preaccess" && parts.stage != "access") {
    return refuse(cf, "stage is preaccess or access (after auth_request and the like)");
  }
  limit.stage = parts.stage == "access" ? Stage::kAccess : Stage::kPreaccess;
  return read_delay(cf, parts, limit) == NGX_CONF_OK &&
                 check_challenge(cf, parts, limit) == NGX_CONF_OK
             ? read_degrade(cf, parts, limit)
             : kConfError;
}

// Binds a rule of the limit's own to a counter of its zone, as one of `bounds`.
char* bind_rule(ngx_conf_t* cf, std::string_view name, const Terms& terms, Limit& limit,
                Bounds& bounds) noexcept {
  auto* rule = make<Rule>(cf->pool);
  if (rule == nullptr) {
    return kConfError;
  }
  rule->name = str(name);
  if (!is_name(name)) {
    return refuse(cf, "invalid name \"%V\": %s; add name=NAME", &rule->name, kNameRule);
  }
  const ngx_str_t who = print(cf->pool, "Limit %V", &rule->name);
  if (make_rule(cf, terms, view(who), *rule) != NGX_CONF_OK) {
    return kConfError;
  }
  if (limit.action == Action::kDelay && !is_bucket(*rule)) {
    return refuse(cf,
                  "action=delay needs a rate by token_bucket or leaky_bucket: a window tells "
                  "nobody when its turn is");
  }
  const Rule* other = nullptr;
  Counter* counter = counter_of(cf->pool, *limit.zone, *rule, other);
  if (other != nullptr) {
    ngx_str_t other_terms = other->terms;
    ngx_str_t file = other->file;
    return refuse(
        cf,
        "limit \"%V\" has other terms (%V) in %V:%ui; give this one another name=, or the "
        "same terms",
        &rule->name, &other_terms, &file, other->line);
  }
  if (const char* why = limit.shared ? cannot_share(*rule) : nullptr; why != nullptr) {
    return refuse(cf, "limit \"%V\" of a shared zone: %s", &rule->name, why);
  }
  if (counter != nullptr && counter->bound && counter->shared != limit.shared) {
    return refuse(cf, kSharedElsewhere, &rule->name);
  }
  if (counter == nullptr || !bind(cf->pool, *counter, limit, bounds)) {
    return kConfError;
  }
  return counter->rule != rule || main_conf(cf)->rules.push(cf->pool, rule) != nullptr ? NGX_CONF_OK
                                                                                       : kConfError;
}

// Without a name the key names it: key=$binary_remote_addr is "binary_remote_addr".
char* bind_inline_rule(ngx_conf_t* cf, const LimitParts& parts, Limit& limit) noexcept {
  std::string_view name = parts.name;
  if (name.empty()) {
    name = parts.key;
    name.remove_prefix(name.front() == '$' ? 1 : 0);
  }
  if (char* const bound = bind_rule(cf, name, parts.terms, limit, limit.bounds);
      bound != NGX_CONF_OK || limit.action != Action::kChallenge) {
    return bound;
  }
  ngx_str_t own = str(name);
  const ngx_str_t second = print(cf->pool, "%V-verified", &own);
  return bind_rule(cf, view(second), {.rate = parts.verified}, limit, limit.verified);
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

}  // namespace

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
  limit->by_model = parts.key == "$penstock_model";
  limit->tier_text = str(parts.tier);
  loc.later = loc.later || limit->stage == Stage::kAccess;
  loc.degrades = loc.degrades || limit->action == Action::kDegrade;
  loc.to_earlier = loc.to_earlier || limit->to_earlier;
  loc.challenges = loc.challenges || limit->action == Action::kChallenge;
  loc.shared = loc.shared || limit->shared;
  if (limit->zone->limits.push(cf->pool, limit) == nullptr ||
      main.limits.push(cf->pool, limit) == nullptr || loc.limits.push(cf->pool, limit) == nullptr) {
    return kConfError;
  }
  return NGX_CONF_OK;
}

}  // namespace penstock
