#include "ngx_module/directives/challenge_directive.h"

#include "ngx_module/conf/conf.h"
#include "shared/challenge/challenge.h"
#include "shared/challenge/pass.h"

namespace penstock {
namespace {

char* read_difficulty(ngx_conf_t* cf, std::string_view text, ngx_uint_t& level) noexcept {
  ngx_str_t digits = str(text);
  const ngx_int_t number = ngx_atoi(digits.data, digits.len);
  if (number < 1 || number > challenge::kLevels) {
    return refuse(cf, "difficulty=%V: it is 1, which takes a phone half a second, to %d", &digits,
                  challenge::kLevels);
  }
  level = static_cast<ngx_uint_t>(number);
  return NGX_CONF_OK;
}

char* read_algorithm(ngx_conf_t* cf, std::string_view text, ngx_uint_t& format) noexcept {
  ngx_str_t shown = str(text);
  if (text == "sha-256") {
    format = static_cast<ngx_uint_t>(challenge::Format::kSha256);
  } else if (text == "pbkdf2") {
    format = static_cast<ngx_uint_t>(challenge::Format::kPbkdf2);
  } else {
    return refuse(cf,
                  "algorithm=%V: it is sha-256 or pbkdf2; without it, pbkdf2 is asked for over TLS "
                  "and sha-256 elsewhere",
                  &shown);
  }
  return NGX_CONF_OK;
}

char* read_pass_time(ngx_conf_t* cf, std::string_view text, time_t& seconds) noexcept {
  ngx_str_t time = str(text);
  seconds = ngx_parse_time(&time, 1);
  return seconds > challenge::kLifeSeconds && seconds <= challenge::kLongestPassSeconds
             ? NGX_CONF_OK
             : refuse(cf, "pass=%V: it is how long a pass is good, more than 5m and at most 7d",
                      &time);
}

char* read_provider_option(ngx_conf_t* cf, size_t i, ChallengeProvider& provider,
                           bool& known) noexcept {
  std::string_view value;
  const std::string_view text = view(arg(cf, i));
  known = true;
  if (option(text, "sitekey", value)) {
    provider.sitekey = str(value);
    return is_name(value) ? NGX_CONF_OK
                          : refuse(cf,
                                   "\"%V\" of penstock_challenge: it is the key that the "
                                   "provider gives for pages",
                                   &arg(cf, i));
  }
  if (option(text, "action", value)) {
    provider.action = str(value);
    return is_name(value) ? NGX_CONF_OK
                          : refuse(cf, "\"%V\" of penstock_challenge: %s", &arg(cf, i), kNameRule);
  }
  if (option(text, "version", value) && provider.kind >= ProviderKind::kRecaptcha) {
    provider.kind = value == "3" ? ProviderKind::kRecaptcha3 : ProviderKind::kRecaptcha;
    return value == "2" || value == "3"
               ? NGX_CONF_OK
               : refuse(cf, "\"%V\" of penstock_challenge: reCAPTCHA has versions 2 and 3",
                        &arg(cf, i));
  }
  if (option(text, "on_error", value)) {
    provider.on_away = value == "allow"  ? OnAway::kAllow
                       : value == "deny" ? OnAway::kDeny
                                         : OnAway::kPow;
    return value == "allow" || value == "deny" || value == "pow"
               ? NGX_CONF_OK
               : refuse(cf,
                        "\"%V\" of penstock_challenge: while the provider cannot be asked, a proof "
                        "of work does (pow), all go on (allow) or nobody does (deny)",
                        &arg(cf, i));
  }
  if (option(text, "upstream", value) && !value.empty()) {
    arg(cf, i) = str(value);
    provider.upstream = upstream_named(cf, i);
    return provider.upstream == nullptr ? kConfError : NGX_CONF_OK;
  }
  known = false;
  return NGX_CONF_OK;
}

// turnstile, hcaptcha or recaptcha; nullptr: pow.
char* read_means(ngx_conf_t* cf, ChallengeProvider*& provider) noexcept {
  const std::string_view means = view(arg(cf, 1));
  if (means == "pow") {
    return NGX_CONF_OK;
  }
  if (means != "turnstile" && means != "hcaptcha" && means != "recaptcha") {
    return refuse(cf,
                  "\"%V\" of penstock_challenge: it is pow, a proof of work, which asks nobody "
                  "else, or turnstile, hcaptcha or recaptcha",
                  &arg(cf, 1));
  }
  provider = make<ChallengeProvider>(cf->pool);
  if (provider == nullptr || main_conf(cf)->providers.push(cf->pool, provider) == nullptr) {
    return kConfError;
  }
  provider->kind = means == "turnstile"  ? ProviderKind::kTurnstile
                   : means == "hcaptcha" ? ProviderKind::kHcaptcha
                                         : ProviderKind::kRecaptcha;
  return NGX_CONF_OK;
}

char* check_provider(ngx_conf_t* cf, const ChallengeProvider& provider) noexcept {
  if (provider.sitekey.len == 0) {
    return refuse(cf, "penstock_challenge %V needs sitekey=KEY, as the provider gives it",
                  &arg(cf, 1));
  }
  if (provider.upstream == nullptr) {
    return refuse(
        cf,
        "penstock_challenge %V needs upstream=NAME: its penstockd asks the provider, whose "
        "secret is in penstock.yaml under challenges",
        &arg(cf, 1));
  }
  return NGX_CONF_OK;
}

}  // namespace

char* read_challenge(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  Challenging& challenging = static_cast<LocConf*>(conf)->challenging;
  if (challenging.level != NGX_CONF_UNSET_UINT) {
    return const_cast<char*>("is duplicate");
  }
  ChallengeProvider* provider = nullptr;
  if (read_means(cf, provider) != NGX_CONF_OK) {
    return kConfError;
  }
  challenging.provider = provider;
  challenging.level = 1;
  for (size_t i = 2; i < cf->args->nelts; ++i) {
    const std::string_view text = view(arg(cf, i));
    std::string_view value;
    bool known = false;
    if (provider != nullptr && read_provider_option(cf, i, *provider, known) != NGX_CONF_OK) {
      return kConfError;
    }
    if (known) {
      continue;
    }
    char* const read =
        option(text, "difficulty", value)  ? read_difficulty(cf, value, challenging.level)
        : option(text, "algorithm", value) ? read_algorithm(cf, value, challenging.format)
        : option(text, "pass", value)
            ? read_pass_time(cf, value, challenging.pass_s)
            : refuse(cf,
                     "unknown parameter \"%V\" of penstock_challenge; it takes difficulty=1 to 4, "
                     "algorithm=sha-256|pbkdf2 and pass=1h, and after a provider sitekey=, "
                     "upstream=, on_error=pow|allow|deny, action= and of recaptcha version=2|3",
                     &arg(cf, i));
    if (read != NGX_CONF_OK) {
      return read;
    }
  }
  return provider == nullptr ? NGX_CONF_OK : check_provider(cf, *provider);
}

}  // namespace penstock
