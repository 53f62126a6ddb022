// penstock_tier: a plan's block, read and checked.
#include "ngx_module/directives/tier_directives.h"

#include "ngx_module/conf/conf.h"
#include "ngx_module/conf/text.h"

#include <algorithm>

namespace penstock {
namespace {

// The line `rate 10r/m burst=5 name=x;`, whose first argument is given without its name.
char* read_tier_terms(ngx_conf_t* cf, Terms& terms, std::string_view& name) noexcept {
  const std::string_view word = view(arg(cf, 0));
  std::string_view& amount = word == "rate"    ? terms.rate
                             : word == "quota" ? terms.quota
                                               : terms.concurrency;
  for (size_t i = 1; i < cf->args->nelts; ++i) {
    const std::string_view text = view(arg(cf, i));
    if (char* const lacking = check_value(cf, i); lacking != NGX_CONF_OK) {
      return lacking;
    }
    if (option(text, "name", name) || option(text, "burst", terms.burst) ||
        option(text, "algorithm", terms.algorithm) || option(text, "warn", terms.warn)) {
      continue;
    }
    if (!amount.empty()) {
      return refuse(cf,
                    "unknown parameter \"%V\" of %V; it takes burst=N, algorithm=NAME and "
                    "name=NAME, of a quota also warn=80%%",
                    &arg(cf, i), &arg(cf, 0));
    }
    amount = text;
  }
  if (amount.empty()) {
    return refuse(cf, "%V needs an amount, such as %s", &arg(cf, 0),
                  word == "concurrency" ? "concurrency 8" : "10r/m");
  }
  return NGX_CONF_OK;
}

bool has_rate(const Tier& tier) noexcept {
  for (const Rule* rule : tier.rules) {
    if (rule->kind == RuleKind::kRate) {
      return true;
    }
  }
  return false;
}

char* read_tier_rule(ngx_conf_t* cf, Tier& tier) noexcept {
  Terms terms;
  std::string_view name;
  if (read_tier_terms(cf, terms, name) != NGX_CONF_OK) {
    return kConfError;
  }
  if (tier.rules.size() == kMaxTierRules) {
    return refuse(cf, "tier \"%V\" has more than %uz limits", &tier.name, kMaxTierRules);
  }
  auto* rule = make<Rule>(cf->pool);
  if (rule == nullptr) {
    return kConfError;
  }
  rule->name =
      name.empty() ? default_name(cf->pool, view(tier.name), terms, !has_rate(tier)) : str(name);
  if (!is_name(view(rule->name))) {
    return refuse(cf, "invalid name \"%V\": %s", &rule->name, kNameRule);
  }
  if (find_named(tier.rules, view(rule->name)) != nullptr) {
    return refuse(cf, "tier \"%V\" has two limits named \"%V\"; tell them apart by name=NAME",
                  &tier.name, &rule->name);
  }
  const ngx_str_t who = print(cf->pool, "Plan %V", &tier.name);
  if (make_rule(cf, terms, view(who), *rule) != NGX_CONF_OK ||
      tier.rules.push(cf->pool, rule) == nullptr) {
    return kConfError;
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
  if (word == "rate" || word == "quota" || word == "concurrency") {
    return read_tier_rule(cf, tier);
  }
  if (std::find(tier.said.begin(), tier.said.end(), word) != tier.said.end()) {
    return refuse(cf, "%V stands in tier \"%V\" twice; remove one", &arg(cf, 0), &tier.name);
  }
  if (tier.said.push(cf->pool, word) == nullptr) {
    return kConfError;
  }
  if (word == "priority") {
    return read_tier_number(cf, word, -1000, 1000, tier.priority);
  }
  if (word == "weight") {
    char* const done = read_tier_number(cf, word, 1, 1'000'000, number);
    tier.weight = static_cast<uint64_t>(number);
    return done;
  }
  if (word == "penstock_docs" || word == "variant") {
    if (cf->args->nelts != 2) {
      return refuse(cf, "%V takes one value", &arg(cf, 0));
    }
    if (word == "variant" && !is_name(view(arg(cf, 1)))) {
      return refuse(cf, "invalid variant \"%V\": %s", &arg(cf, 1), kNameRule);
    }
    (word == "variant" ? tier.variant : tier.docs) = arg(cf, 1);
    return NGX_CONF_OK;
  }
  return refuse(
      cf,
      "unknown line \"%V\" in penstock_tier; it knows rate, quota, concurrency, priority, "
      "weight, variant and penstock_docs",
      &arg(cf, 0));
}

ngx_int_t join_policies(ngx_pool_t* pool, Tier& tier) noexcept {
  size_t size = 0;
  for (const Rule* rule : tier.rules) {
    size += rule->header.len + 2;
  }
  tier.policies.data = static_cast<u_char*>(ngx_pnalloc(pool, size + 1));
  if (tier.policies.data == nullptr) {
    return NGX_ERROR;
  }
  u_char* at = tier.policies.data;
  for (const Rule* rule : tier.rules) {
    at = at == tier.policies.data ? at : ngx_cpymem(at, ", ", 2);
    at = ngx_cpymem(at, rule->header.data, rule->header.len);
  }
  tier.policies.len = static_cast<size_t>(at - tier.policies.data);
  return NGX_OK;
}

// A limit that can never be reached, as another one of the plan always comes first.
void warn_of_contradictions(ngx_conf_t* cf, const Tier& tier) noexcept {
  for (const Rule* quota : tier.rules) {
    for (const Rule* rate : tier.rules) {
      if (quota->kind != RuleKind::kQuota || rate->kind != RuleKind::kRate ||
          quota->unit != rate->unit || quota->policy.limit >= rate->policy.limit) {
        continue;
      }
      ngx_str_t terms = rate->terms;
      warn_at(cf, quota->file, quota->line,
              "quota \"%V\" is smaller than what \"%V\" (%V) lets come at once, so that burst is "
              "never to be had: make the quota larger, or the burst at most %uL",
              &quota->name, &rate->name, &terms, quota->amount);
    }
  }
}

}  // namespace

char* read_tier(ngx_conf_t* cf, ngx_command_t*, void*) noexcept {
  MainConf& main = *main_conf(cf);
  if (!is_name(view(arg(cf, 1)))) {
    return refuse(cf, "invalid tier name \"%V\": %s", &arg(cf, 1), kNameRule);
  }
  if (find_named(main.tiers, view(arg(cf, 1))) != nullptr) {
    return refuse(cf, "tier \"%V\" is defined twice", &arg(cf, 1));
  }
  auto* tier = make<Tier>(cf->pool);
  if (tier == nullptr || main.tiers.push(cf->pool, tier) == nullptr) {
    return kConfError;
  }
  tier->name = arg(cf, 1);
  tier->index = main.tiers.size() - 1;
  const ngx_conf_t saved = *cf;
  cf->handler = read_tier_line;
  cf->handler_conf = reinterpret_cast<char*>(tier);
  char* const done = ngx_conf_parse(cf, nullptr);
  *cf = saved;
  return done;
}

ngx_int_t finish_tiers(ngx_conf_t* cf) noexcept {
  const MainConf& main = *main_conf(cf);
  for (Tier* tier : main.tiers) {
    if (tier->docs.len == 0) {
      tier->docs = main.docs;
    }
    for (Rule* rule : tier->rules) {
      if (!finish_rule(cf->pool, *rule, view(tier->docs))) {
        return NGX_ERROR;
      }
    }
    if (join_policies(cf->pool, *tier) != NGX_OK) {
      return NGX_ERROR;
    }
    warn_of_contradictions(cf, *tier);
  }
  return NGX_OK;
}

}  // namespace penstock
