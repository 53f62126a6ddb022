#include "ngx_module/pages/quota.h"

#include <algorithm>

#include "ngx_module/admit/refuse.h"
#include "ngx_module/pages/quota_report.h"
#include "ngx_module/request/request.h"

namespace penstock {
namespace {

// Those of `limits` that a single caller may be told of.
bool add_shown(ngx_pool_t* pool, const PoolArray<Limit*>& limits, LocConf& loc) noexcept {
  for (Limit* limit : limits) {
    if (limit->key.kind != Value::Kind::kConstant && !limit->dry_run &&
        loc.shown.push(pool, limit) == nullptr) {
      return false;
    }
  }
  return true;
}

}  // namespace

ngx_int_t tell_quota(ngx_http_request_t* r) noexcept {
  if (const ngx_int_t rc = check_method(r, NGX_HTTP_GET | NGX_HTTP_HEAD, "GET, HEAD");
      rc != NGX_DECLINED) {
    return rc;
  }
  RequestState* state = state_of(r);
  if (state == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  Quota quota;
  Quota::UnknownTier unknown;
  const ngx_int_t rc = quota.find(r, *loc_conf(r), unknown);
  if (rc != NGX_DECLINED) {
    return unknown.limit == nullptr ? rc
                                    : refuse_page(r, unknown_tier(r, *unknown.limit, unknown.name));
  }
  state->tier = quota.tier();
  quota.look();
  Page page(r);
  quota.write(page);
  return page.send();
}

char* read_quota(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  loc.server = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);
  loc.quota = true;
  return set_page(cf, loc, tell_quota);
}

ngx_int_t bind_quotas(ngx_conf_t* cf) noexcept {
  const MainConf& main = *main_conf(cf);
  const void* everywhere = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);
  for (LocConf* loc : main.quotas) {
    for (const LocConf* sign_in : main.sign_ins) {
      if (sign_in->server == loc->server) {
        loc->sign_in_path = sign_in->sign_in_path;
      }
    }
    if (!add_shown(cf->pool, loc->told, *loc)) {
      return NGX_ERROR;
    }
    if (loc->own_limits && !loc->shown.empty()) {
      continue;
    }
    PoolArray<Limit*> all;
    for (Limit* limit : main.limits) {
      // One that needs another location's access checks first could tell of somebody else here.
      if (limit->stage == Stage::kPreaccess && !limit->pages &&
          (limit->server == loc->server || limit->server == everywhere) &&
          std::find(loc->told.begin(), loc->told.end(), limit) == loc->told.end() &&
          all.push(cf->pool, limit) == nullptr) {
        return NGX_ERROR;
      }
    }
    if (!add_shown(cf->pool, all, *loc)) {
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

}  // namespace penstock
