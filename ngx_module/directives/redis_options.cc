#include "ngx_module/directives/redis_options.h"

#include <algorithm>
#include <string>

#include "ngx_module/conf/text.h"
#include "ngx_module/lease/facts.h"
#include "ngx_module/lease/lessee.h"
#include "shared/base/secret_file.h"

namespace penstock {
namespace {

constexpr std::string_view kOptions[] = {
    "redis", "db", "user", "password_file", "prefix", "timeout", "on_error", "sentinel", "tls"};

char* read_address(ngx_conf_t* cf, size_t i, ngx_str_t text, Sharing& sharing) noexcept {
  for (size_t earlier = 3; earlier < i; ++earlier) {
    if (view(arg(cf, earlier)) == view(arg(cf, i))) {
      return refuse(cf, "parameter \"%V\" of penstock_zone comes twice", &arg(cf, i));
    }
  }
  ngx_url_t url;
  ngx_memzero(&url, sizeof url);
  url.url = text;
  url.default_port = 6379;
  if (ngx_parse_url(cf->pool, &url) != NGX_OK || url.naddrs == 0 || url.uri.len != 0) {
    ngx_str_t why = str(url.err == nullptr ? "it is no address" : url.err);
    return refuse(cf, "\"%V\" of penstock_zone: %V; give redis=HOST:PORT or redis=unix:PATH",
                  &arg(cf, i), &why);
  }
  RedisAddress address;
  const ngx_addr_t& at = url.addrs[0];
  if (at.sockaddr->sa_family == AF_UNIX) {
    address.path = copy(cf->pool, reinterpret_cast<sockaddr_un*>(at.sockaddr)->sun_path);
  } else {
    u_char ip[NGX_SOCKADDR_STRLEN];
    address.ip = copy(cf->pool, {reinterpret_cast<char*>(ip),
                                 ngx_sock_ntop(at.sockaddr, at.socklen, ip, sizeof ip, 0)});
    address.port = ngx_inet_get_port(at.sockaddr);
  }
  sharing.text = print(cf->pool, "Redis at %V", &text);
  return (address.path.data == nullptr && address.ip.data == nullptr) ||
                 sharing.text.data == nullptr ||
                 sharing.addresses.push(cf->pool, address) == nullptr
             ? kConfError
             : NGX_CONF_OK;
}

char* read_password(ngx_conf_t* cf, ngx_str_t path, Sharing& sharing) noexcept {
  constexpr size_t kMost = 512;
  ngx_str_t full = copy(cf->pool, view(path));
  if (full.data == nullptr || ngx_conf_full_name(cf->cycle, &full, 1) != NGX_OK) {
    return kConfError;
  }
  auto secret = read_secret_file(std::string(view(full)), kMost);
  if (!secret) {
    ngx_str_t why = str(secret.error().message);
    return refuse(cf, "password_file= of penstock_zone: %V", &why);
  }
  if (secret->is_too_open()) {
    return refuse(cf, "password_file=%V can be read by others: chmod 640 it", &full);
  }
  std::string_view text = secret->text;
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) {
    text.remove_suffix(1);
  }
  if (text.empty() || text.size() > kMost || text.find('\n') != std::string_view::npos) {
    return refuse(cf, "password_file=%V must hold the password, 1 to %uz bytes in one line", &full,
                  kMost);
  }
  sharing.password = copy(cf->pool, text);
  return sharing.password.data == nullptr ? kConfError : NGX_CONF_OK;
}

char* read_one(ngx_conf_t* cf, size_t i, std::string_view name, ngx_str_t value,
               Sharing& sharing) noexcept {
  if (name == "redis") {
    return read_address(cf, i, value, sharing);
  }
  if (name == "db") {
    sharing.database = ngx_atoi(value.data, value.len);
    constexpr ngx_int_t kMost = 1'000'000;
    return sharing.database >= 0 && sharing.database <= kMost
               ? NGX_CONF_OK
               : refuse(cf, "\"%V\" of penstock_zone: it is the number of a database, such as 0",
                        &arg(cf, i));
  }
  if (name == "user") {
    sharing.user = value;
    return NGX_CONF_OK;
  }
  if (name == "password_file") {
    return read_password(cf, value, sharing);
  }
  if (name == "prefix") {
    sharing.prefix = value;
    return is_name(view(value)) ? NGX_CONF_OK
                                : refuse(cf, "\"%V\" of penstock_zone: %s", &arg(cf, i), kNameRule);
  }
  if (name == "timeout") {
    const ngx_int_t time = ngx_parse_time(&value, 0);
    constexpr ngx_int_t kMostMs = 500;
    if (time == NGX_ERROR || time < 1 || time > kMostMs) {
      return refuse(
          cf,
          "\"%V\" of penstock_zone: it is the longest that a request waits for Redis, 1ms "
          "to 500ms, such as 5ms",
          &arg(cf, i));
    }
    sharing.timeout = static_cast<ngx_msec_t>(time);
    return NGX_CONF_OK;
  }
  if (name == "on_error") {
    const std::string_view word = view(value);
    sharing.without = word == "allow"  ? limit::Without::kAllow
                      : word == "deny" ? limit::Without::kDeny
                                       : limit::Without::kLocal;
    return word == "local" || word == "allow" || word == "deny"
               ? NGX_CONF_OK
               : refuse(cf,
                        "\"%V\" of penstock_zone: without Redis limits are local (each host goes "
                        "by its share), or requests pass (allow) or are refused (deny)",
                        &arg(cf, i));
  }
  if (name == "sentinel") {
    sharing.sentinel = value;
    return NGX_CONF_OK;
  }
  return refuse(cf,
                "\"%V\" of penstock_zone: this module was built with a hiredis that has no TLS; "
                "put stunnel or another local proxy between, and give its address",
                &arg(cf, i));
}

// What the parts of it are together.
char* check_together(ngx_conf_t* cf, Sharing& sharing) noexcept {
  const bool cluster = sharing.sentinel.len == 0 && sharing.addresses.size() > 1;
  if (sharing.user.len != 0 && sharing.password.len == 0) {
    return refuse(cf, "user=%V of penstock_zone has no password: add password_file=PATH",
                  &sharing.user);
  }
  if (cluster && sharing.database != 0) {
    return refuse(cf,
                  "db=%i of penstock_zone: several redis= are the nodes of a cluster, which has "
                  "only database 0; for Sentinels add sentinel=NAME",
                  sharing.database);
  }
  for (const RedisAddress& address : sharing.addresses) {
    if (address.path.len != 0 && (cluster || sharing.sentinel.len != 0)) {
      return refuse(cf,
                    "redis=unix:%V of penstock_zone: nodes of a cluster and Sentinels have "
                    "addresses, HOST:PORT",
                    &address.path);
    }
  }
  if (cluster) {
    sharing.text = str("the cluster of Redis");
  } else if (sharing.sentinel.len != 0) {
    sharing.text = print(cf->pool, "the Redis that Sentinels call %V", &sharing.sentinel);
  }
  return sharing.text.data == nullptr ? kConfError : NGX_CONF_OK;
}

}  // namespace

char* read_redis_option(ngx_conf_t* cf, size_t i, Sharing& sharing, bool& known) noexcept {
  std::string_view value;
  for (const std::string_view name : kOptions) {
    if (!option(view(arg(cf, i)), name, value)) {
      continue;
    }
    known = true;
    for (size_t earlier = 3; earlier < i; ++earlier) {
      std::string_view other;
      if (name != "redis" && option(view(arg(cf, earlier)), name, other)) {
        return refuse(cf, "parameter \"%V\" of penstock_zone comes twice", &arg(cf, i));
      }
    }
    if (char* const lacking = check_value(cf, i); lacking != NGX_CONF_OK) {
      return lacking;
    }
    const ngx_str_t text = copy(cf->pool, value);  // ends with '\0'
    return text.data == nullptr ? kConfError : read_one(cf, i, name, text, sharing);
  }
  return NGX_CONF_OK;
}

char* share_zone(ngx_conf_t* cf, const Sharing& read, Zone& zone) noexcept {
  if (read.addresses.empty()) {
    for (size_t i = 3; i < cf->args->nelts; ++i) {
      std::string_view value;
      if (!option(view(arg(cf, i)), "file", value) &&
          !option(view(arg(cf, i)), "secret_file", value)) {
        return refuse(cf, "parameter \"%V\" of penstock_zone belongs to redis=HOST:PORT",
                      &arg(cf, i));
      }
    }
    return NGX_CONF_OK;
  }
  zone.sharing = make<Sharing>(cf->pool);
  void* memory = ngx_palloc(cf->pool, sizeof(Lessee));
  if (zone.sharing == nullptr || memory == nullptr) {
    return kConfError;
  }
  *zone.sharing = read;
  if (check_together(cf, *zone.sharing) != NGX_CONF_OK) {
    return kConfError;
  }
  zone.lessor = new (memory) Lessee(zone);
  return add_facts(cf, zone) == NGX_OK ? NGX_CONF_OK : kConfError;
}

}  // namespace penstock
