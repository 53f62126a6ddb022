#include "ngx_module/directives/bind_sources.h"

#include <algorithm>
#include <span>

#include "ngx_module/admit/status_source.h"
#include "ngx_module/challenge/verify_line.h"
#include "ngx_module/conf/conf.h"
#include "ngx_module/request/quota_line.h"

namespace penstock {
namespace {

std::span<const ngx_http_upstream_server_t> servers_of(
    const ngx_http_upstream_srv_conf_t& upstream) noexcept {
  return upstream.servers == nullptr
             ? std::span<const ngx_http_upstream_server_t>()
             : std::span(static_cast<const ngx_http_upstream_server_t*>(upstream.servers->elts),
                         upstream.servers->nelts);
}

// The path of its Unix socket; empty: it is reached otherwise.
std::string_view socket_of(const ngx_http_upstream_server_t& server) noexcept {
  constexpr std::string_view kScheme = "unix:";
  const std::string_view name = server.naddrs > 0 ? view(server.addrs[0].name) : "";
  return name.starts_with(kScheme) ? name.substr(kScheme.size()) : "";
}

// The penstockds on this machine that a page tells of, each once.
ngx_int_t bind_watcher(ngx_conf_t* cf, LocConf& loc) noexcept {
  for (const ngx_http_upstream_server_t& server : servers_of(*loc.watched)) {
    const std::string_view socket = socket_of(server);
    if (socket.empty()) {
      continue;
    }
    StatusSource* source = source_of(cf, socket);
    if (source == nullptr) {
      return NGX_ERROR;
    }
    if (std::find(loc.status.begin(), loc.status.end(), source) == loc.status.end() &&
        loc.status.push(cf->pool, source) == nullptr) {
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

// Those that a location hands over to: all, or, as one that nothing is known of may always take the
// job, none.
ngx_int_t bind_pass(ngx_conf_t* cf, LocConf& loc) noexcept {
  for (const ngx_http_upstream_server_t& server : servers_of(*loc.upstream.upstream)) {
    if (server.down != 0) {
      continue;
    }
    const std::string_view socket = socket_of(server);
    if (socket.empty()) {
      loc.status = {};
      return NGX_OK;
    }
    StatusSource* source = source_of(cf, socket);
    if (source == nullptr || loc.status.push(cf->pool, source) == nullptr) {
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

// Those that ask a provider of challenges.
ngx_int_t bind_provider(ngx_conf_t* cf, ChallengeProvider& provider) noexcept {
  for (const ngx_http_upstream_server_t& server : servers_of(*provider.upstream)) {
    const std::string_view socket = socket_of(server);
    if (server.down != 0 || socket.empty()) {
      continue;
    }
    VerifyLine* line = verify_line_of(cf, socket);
    if (line == nullptr || provider.lines.push(cf->pool, line) == nullptr) {
      return NGX_ERROR;
    }
  }
  if (provider.lines.empty()) {
    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "upstream=%V of penstock_challenge has no penstockd on this machine: it needs a "
                  "server unix:PATH that is not down",
                  &provider.upstream->host);
    return NGX_ERROR;
  }
  return NGX_OK;
}

bool warns(const PoolArray<Rule*>& rules) noexcept {
  return std::any_of(rules.begin(), rules.end(), [](const Rule* rule) { return rule->warn != 0; });
}

// Those that are told what a quota has come to.
ngx_int_t bind_quotas(ngx_conf_t* cf, MainConf& main) noexcept {
  const bool any =
      warns(main.rules) || std::any_of(main.tiers.begin(), main.tiers.end(),
                                       [](const Tier* tier) { return warns(tier->rules); });
  for (const StatusSource* source : main.sources) {
    if (any && !add_quota_line(cf->pool, main, view(source->socket))) {
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

}  // namespace

ngx_int_t bind_sources(ngx_conf_t* cf) noexcept {
  MainConf& main = *main_conf(cf);
  for (LocConf* loc : main.watchers) {
    if (bind_watcher(cf, *loc) != NGX_OK) {
      return NGX_ERROR;
    }
  }
  for (LocConf* loc : main.passes) {
    if (bind_pass(cf, *loc) != NGX_OK) {
      return NGX_ERROR;
    }
  }
  for (ChallengeProvider* provider : main.providers) {
    if (bind_provider(cf, *provider) != NGX_OK) {
      return NGX_ERROR;
    }
  }
  return bind_quotas(cf, main);
}

}  // namespace penstock
