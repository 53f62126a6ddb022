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

}  // namespace

char* read_challenge(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  Challenging& challenging = static_cast<LocConf*>(conf)->challenging;
  if (challenging.level != NGX_CONF_UNSET_UINT) {
    return const_cast<char*>("is duplicate");
  }
  if (view(arg(cf, 1)) != "pow") {
    return refuse(cf,
                  "\"%V\" of penstock_challenge: this version knows pow, a proof of work, and asks "
                  "nobody else",
                  &arg(cf, 1));
  }
  challenging.level = 1;
  for (size_t i = 2; i < cf->args->nelts; ++i) {
    const std::string_view text = view(arg(cf, i));
    std::string_view value;
    char* const read =
        option(text, "difficulty", value)  ? read_difficulty(cf, value, challenging.level)
        : option(text, "algorithm", value) ? read_algorithm(cf, value, challenging.format)
        : option(text, "pass", value)
            ? read_pass_time(cf, value, challenging.pass_s)
            : refuse(cf,
                     "unknown parameter \"%V\" of penstock_challenge; after pow it "
                     "takes difficulty=1 to 4, algorithm=sha-256|pbkdf2 and pass=1h",
                     &arg(cf, i));
    if (read != NGX_CONF_OK) {
      return read;
    }
  }
  return NGX_CONF_OK;
}

}  // namespace penstock
