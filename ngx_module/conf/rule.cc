#include "ngx_module/conf/rule.h"

#include "ngx_module/conf/directive.h"
#include "ngx_module/conf/text.h"

namespace penstock {
namespace {

// The algorithms of a rate. A leaky bucket is a token bucket that lets nothing come early.
constexpr std::string_view kTokenBucket = "token_bucket";
constexpr std::string_view kLeakyBucket = "leaky_bucket";
constexpr std::string_view kSlidingWindow = "sliding_window";
constexpr std::string_view kSlidingLog = "sliding_log";
constexpr std::string_view kFixedWindow = "fixed_window";

char* refuse_terms(ngx_conf_t* cf, const char* what, std::string_view text,
                   const char* remedy) noexcept {
  ngx_str_t shown = str(text);
  return refuse(cf, "invalid %s \"%V\": %s", what, &shown, remedy);
}

template <typename T>
char* keep(ngx_conf_t* cf, const char* what, std::string_view text, const Result<T>& made,
           limit::Policy& policy) noexcept {
  if (!made) {
    return refuse_terms(cf, what, text, made.error().message.c_str());
  }
  if constexpr (std::is_same_v<T, limit::Policy>) {
    policy = *made;
  } else {
    policy = limit::make_policy(*made);
  }
  return NGX_CONF_OK;
}

// What a request used beyond its reservation is paid off by those that follow, up to an hour's
// worth.
constexpr uint64_t kDebtNs = 3600ull * 1'000'000'000;

char* make_bucket(ngx_conf_t* cf, const Terms& terms, const Rate& rate, Rule& rule) noexcept {
  uint64_t burst = 0;
  if (!terms.burst.empty() &&
      (!parse_number(terms.burst, limit::kMaxBurst / rule.scale(), burst) || burst == 0)) {
    ngx_str_t text = str(terms.burst);
    return refuse(cf, "invalid burst \"%V\": the burst is how many may come at once, from 1 to %uL",
                  &text, limit::kMaxBurst / rule.scale());
  }
  if (terms.burst.empty() && rule.algorithm == kLeakyBucket) {
    burst = 1;
  }
  auto gcra = limit::make_gcra(rate.counted(), rate.period_ns(), burst * rule.scale());
  if (gcra && rate.unit != Unit::kRequests) {
    limit::allow_debt(*gcra, kDebtNs);
  }
  return keep(cf, "rate", terms.rate, gcra, rule.policy);
}

char* make_rate(ngx_conf_t* cf, const Terms& terms, Rule& rule) noexcept {
  Rate rate;
  if (const char* remedy = parse_rate(terms.rate, rate); remedy != nullptr) {
    return refuse_terms(cf, "rate", terms.rate, remedy);
  }
  rule.kind = RuleKind::kRate;
  rule.unit = rate.unit;
  rule.amount = rate.amount;
  rule.period = rate.period;
  rule.algorithm = terms.algorithm.empty() ? kTokenBucket : terms.algorithm;
  if (rule.algorithm == kTokenBucket || rule.algorithm == kLeakyBucket) {
    return make_bucket(cf, terms, rate, rule);
  }
  if (!terms.burst.empty()) {
    return refuse(cf,
                  "burst= belongs to token_bucket and leaky_bucket: a window admits all that is "
                  "left of it at once");
  }
  if (rule.algorithm == kSlidingWindow) {
    return keep(cf, "rate", terms.rate,
                limit::make_sliding_window(rate.counted(), rate.period->span), rule.policy);
  }
  if (rule.algorithm == kFixedWindow) {
    return keep(cf, "rate", terms.rate, limit::make_fixed_window(rate.counted(), rate.period->span),
                rule.policy);
  }
  if (rule.algorithm == kSlidingLog) {
    if (rate.unit != Unit::kRequests) {
      return refuse_terms(cf, "rate", terms.rate,
                          "a sliding log keeps each request: count tokens and GPU seconds by "
                          "sliding_window or token_bucket");
    }
    return keep(cf, "rate", terms.rate,
                limit::make_sliding_log(rate.counted(), static_cast<int64_t>(rate.period_ns())),
                rule.policy);
  }
  return refuse_terms(cf, "algorithm", rule.algorithm,
                      "it is one of token_bucket, leaky_bucket, sliding_window, sliding_log, "
                      "fixed_window");
}

char* read_warning(ngx_conf_t* cf, std::string_view text, Rule& rule) noexcept {
  uint64_t percent = 0;
  if (!text.ends_with('%') || !parse_number(text.substr(0, text.size() - 1), 100, percent) ||
      percent == 0) {
    return refuse_terms(cf, "warn", text,
                        "it is how much of the quota is used when a word is said, from 1% to "
                        "100%, such as 80%");
  }
  rule.warn = static_cast<unsigned>(percent);
  return NGX_CONF_OK;
}

char* make_quota(ngx_conf_t* cf, const Terms& terms, Rule& rule) noexcept {
  Rate rate;
  if (const char* remedy = parse_rate(terms.quota, rate); remedy != nullptr) {
    return refuse_terms(cf, "quota", terms.quota, remedy);
  }
  if (!terms.burst.empty() || !terms.algorithm.empty()) {
    return refuse(cf, "a quota has no burst= or algorithm=: it counts in the calendar's windows");
  }
  if (!terms.warn.empty() && read_warning(cf, terms.warn, rule) != NGX_CONF_OK) {
    return kConfError;
  }
  rule.kind = RuleKind::kQuota;
  rule.unit = rate.unit;
  rule.amount = rate.amount;
  rule.period = rate.period;
  rule.algorithm = kFixedWindow;
  return keep(cf, "quota", terms.quota, limit::make_fixed_window(rate.counted(), rate.period->span),
              rule.policy);
}

char* make_concurrency(ngx_conf_t* cf, const Terms& terms, Rule& rule) noexcept {
  if (!terms.burst.empty() || !terms.algorithm.empty()) {
    return refuse(cf, "a concurrency has no burst= or algorithm=: it is how many may run at once");
  }
  if (!parse_number(terms.concurrency, INT32_MAX, rule.amount)) {
    return refuse_terms(cf, "concurrency", terms.concurrency,
                        "it is how many requests may be queued or running at once, such as 8");
  }
  rule.kind = RuleKind::kConcurrency;
  rule.algorithm = "concurrency";
  return keep(cf, "concurrency", terms.concurrency, limit::make_concurrency(rule.amount),
              rule.policy);
}

void put_into_words(ngx_pool_t* pool, const Terms& terms, std::string_view who,
                    Rule& rule) noexcept {
  const ngx_str_t owner = str(who);
  const ngx_str_t what = str(word_of(rule.unit, rule.amount));
  if (rule.kind == RuleKind::kConcurrency) {
    rule.terms = print(pool, "concurrency=%uL", rule.amount);
    rule.allows = print(pool, "%V allows %uL request%s at a time.", &owner, rule.amount,
                        rule.amount == 1 ? "" : "s");
    rule.sentence = print(pool, "%V %uL %s running already.", &rule.allows, rule.amount,
                          rule.amount == 1 ? "is" : "are");
    rule.header = print(pool, "\"%V\";q=%uL;qu=\"concurrent-requests\"", &rule.name, rule.amount);
  } else {
    const bool quota = rule.kind == RuleKind::kQuota;
    const ngx_str_t written = str(quota ? terms.quota : terms.rate);
    const ngx_str_t algorithm = str(rule.algorithm);
    rule.terms = quota ? print(pool, "quota=%V", &written)
                       : print(pool, "%V burst=%uL algorithm=%V", &written,
                               rule.policy.limit / rule.scale(), &algorithm);
    rule.allows =
        print(pool, "%V allows %uL %V %s.", &owner, rule.amount, &what, rule.period->each);
    rule.sentence = quota ? print(pool, "%V %s quota is used up.", &rule.allows, rule.period->whose)
                          : rule.allows;
    rule.header = print(pool, "\"%V\";q=%uL;w=%uL%s", &rule.name, rule.amount, rule.period_s(),
                        rule.unit == Unit::kTokens ? ";qu=\"tokens\""
                        : rule.unit == Unit::kGpu  ? ";qu=\"gpu-seconds\""
                                                   : "");
  }
  rule.label = print(pool, "\"%V\";r=", &rule.name);
  rule.most = print(pool, "%uL", rule.told(rule.policy.limit));
}

}  // namespace

bool Terms::take(std::string_view argument) noexcept {
  return option(argument, "rate", rate) || option(argument, "quota", quota) ||
         option(argument, "concurrency", concurrency) || option(argument, "burst", burst) ||
         option(argument, "algorithm", algorithm) || option(argument, "warn", warn);
}

std::string_view Rule::code() const noexcept {
  switch (kind) {
    case RuleKind::kQuota:
      return "quota_exceeded";
    case RuleKind::kConcurrency:
      return "concurrency_exceeded";
    default:
      return "rate_limit_exceeded";
  }
}

char* make_rule(ngx_conf_t* cf, const Terms& terms, std::string_view who, Rule& rule) noexcept {
  if (!terms.warn.empty() && terms.quota.empty()) {
    return refuse(cf, "warn= belongs to a quota: of a rate or a concurrency nobody is warned");
  }
  char* const made = !terms.concurrency.empty() ? make_concurrency(cf, terms, rule)
                     : !terms.quota.empty()     ? make_quota(cf, terms, rule)
                                                : make_rate(cf, terms, rule);
  if (made != NGX_CONF_OK) {
    return made;
  }
  put_into_words(cf->pool, terms, who, rule);
  rule.file = cf->conf_file->file.name;
  rule.line = cf->conf_file->line;
  return rule.terms.data != nullptr && rule.allows.data != nullptr &&
                 rule.sentence.data != nullptr && rule.header.data != nullptr &&
                 rule.label.data != nullptr && rule.most.data != nullptr
             ? NGX_CONF_OK
             : kConfError;
}

ngx_str_t default_name(ngx_pool_t* pool, std::string_view tier, const Terms& terms,
                       bool first_rate) noexcept {
  ngx_str_t plan = str(tier);
  if (!terms.concurrency.empty()) {
    return print(pool, "%V-concurrency", &plan);
  }
  const std::string_view text = terms.quota.empty() ? terms.rate : terms.quota;
  Rate rate;
  parse_rate(text, rate);  // what is wrong with it is said by make_rule
  const char* unit = rate.unit == Unit::kTokens ? "-tokens" : rate.unit == Unit::kGpu ? "-gpu" : "";
  if (terms.quota.empty() && first_rate) {
    return print(pool, "%V-rate", &plan);
  }
  return print(pool, "%V-%s%s-%c", &plan, terms.quota.empty() ? "rate" : "quota", unit,
               text.empty() ? '?' : text.back());
}

bool finish_rule(ngx_pool_t* pool, Rule& rule, std::string_view docs) noexcept {
  return rule.refusal.prepare(pool, view(rule.name), view(rule.sentence), rule.code(), docs);
}

bool same_terms(const Rule& a, const Rule& b) noexcept {
  return a.kind == b.kind && a.unit == b.unit && a.policy.algorithm == b.policy.algorithm &&
         a.policy.limit == b.policy.limit && a.policy.gcra.interval == b.policy.gcra.interval &&
         a.policy.window.span == b.policy.window.span && a.policy.length_ns == b.policy.length_ns;
}

}  // namespace penstock
