// Providers of challenges, as their own documentation has them: where a widget's script comes from,
// which hosts its page lets in, and in which field of a form its answer comes.
//
//   https://developers.cloudflare.com/turnstile/reference/content-security-policy/
//   https://docs.hcaptcha.com/#content-security-policy-settings
//   https://developers.google.com/recaptcha/docs/faq
#pragma once

#include "ngx_module/conf/conf.h"

namespace penstock {

struct KnownProvider {
  std::string_view name;
  std::string_view field;   // of the form
  std::string_view widget;  // its class
  std::string_view script;
  std::string_view policy;  // of the page
};

inline const KnownProvider& known_provider(ProviderKind kind) noexcept {
#define PENSTOCK_POLICY(script, frame, style, connect)                                            \
  "default-src 'none'; script-src 'self' " script "; frame-src " frame "; style-src 'self'" style \
  "; img-src 'self'; connect-src 'self'" connect                                                  \
  "; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
#define PENSTOCK_CLOUDFLARE "https://challenges.cloudflare.com"
#define PENSTOCK_HCAPTCHA "https://hcaptcha.com https://*.hcaptcha.com"
#define PENSTOCK_GOOGLE "https://www.google.com/recaptcha/"
  static constexpr std::string_view kGoogle =
      PENSTOCK_POLICY(PENSTOCK_GOOGLE " https://www.gstatic.com/recaptcha/",
                      PENSTOCK_GOOGLE " https://recaptcha.google.com/recaptcha/", "", "");
  static constexpr KnownProvider kKnown[] = {
      {"turnstile", "cf-turnstile-response", "cf-turnstile",
       PENSTOCK_CLOUDFLARE "/turnstile/v0/api.js",
       PENSTOCK_POLICY(PENSTOCK_CLOUDFLARE, PENSTOCK_CLOUDFLARE, "", "")},
      {"hcaptcha", "h-captcha-response", "h-captcha", "https://js.hcaptcha.com/1/api.js",
       PENSTOCK_POLICY(PENSTOCK_HCAPTCHA, PENSTOCK_HCAPTCHA, " " PENSTOCK_HCAPTCHA,
                       " " PENSTOCK_HCAPTCHA)},
      {"recaptcha", "g-recaptcha-response", "g-recaptcha", PENSTOCK_GOOGLE "api.js", kGoogle},
      {"recaptcha", "g-recaptcha-response", "g-recaptcha", PENSTOCK_GOOGLE "api.js", kGoogle},
  };
#undef PENSTOCK_GOOGLE
#undef PENSTOCK_HCAPTCHA
#undef PENSTOCK_CLOUDFLARE
#undef PENSTOCK_POLICY
  return kKnown[static_cast<size_t>(kind)];
}

}  // namespace penstock
