#include "ngx_module/pages/quota.h"

#include <algorithm>

#include "ngx_module/admit/refuse.h"
#include "ngx_module/admit/resolve.h"
#include "ngx_module/pages/limit_report.h"
#include "ngx_module/request/request.h"

namespace penstock {
namespace {

// One counter as the caller has used it.
struct Told {
  const Counter* counter = nullptr;
  const limit::Policy* policy = nullptr;
  limit::Decision now;
};

struct Quota {
  const Tier* tier = nullptr;
  PoolArray<Told> limits;
  Told concurrency;  // the tightest; no counter: none
};

bool is_told(const Quota& quota, const Counter* counter) noexcept {
  for (const Told& told : quota.limits) {
    if (told.counter == counter) {
      return true;
    }
  }
  return false;
}

bool add_bounds(ngx_http_request_t* r, const Limit& limit, const Resolved& found,
                Quota& quota) noexcept {
  for (const Bound& bound : *found.bounds) {
    if (is_told(quota, bound.counter)) {
      continue;
    }
    const Told told{bound.counter, &bound.policy,
                    look_at(*limit.zone, bound.policy, bound.counter->place_of(found.key))};
    if (bound.counter->rule->kind != RuleKind::kConcurrency) {
      if (quota.limits.push(r->pool, told) == nullptr) {
        return false;
      }
    } else if (quota.concurrency.counter == nullptr ||
               told.now.remaining < quota.concurrency.now.remaining) {
      quota.concurrency = told;
    }
  }
  return true;
}

// Results: NGX_DECLINED: go on; else the handler's.
ngx_int_t add_limit(ngx_http_request_t* r, const Limit& limit, Quota& quota) noexcept {
  const Resolved found = resolve(r, limit);
  if (found.kind == Resolved::Kind::kFailed) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (found.asked_body || found.kind == Resolved::Kind::kNobody) {
    return NGX_DECLINED;
  }
  if (found.kind == Resolved::Kind::kUnknownTier) {
    return refuse_page(r, unknown_tier(r, limit, found.tier_name));
  }
  quota.tier = quota.tier == nullptr ? found.tier : quota.tier;
  return add_bounds(r, limit, found, quota) ? NGX_DECLINED : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

void write_limit(Page& page, const Told& told) noexcept {
  const Rule& rule = *told.counter->rule;
  page.raw(R"({"name":")").raw(view(rule.name));
  page.raw(R"(","unit":")").raw(label_of(rule.unit)).raw(R"(","limit":)");
  write_amount(page, rule, told.policy->limit);
  if (rule.kind == RuleKind::kRate) {
    page.raw(R"(,"amount":)").number(rule.amount);
    page.raw(R"(,"period_seconds":)").number(rule.period_s());
  }
  write_standing(page, rule, *told.policy, told.now);
  page.raw("}");
}

void write_concurrency(Page& page, const Told& told) noexcept {
  page.raw(R"("concurrency":)");
  if (told.counter == nullptr) {
    page.raw("null");
    return;
  }
  page.raw(R"({"limit":)").number(told.policy->limit);
  page.raw(R"(,"in_use":)").number(told.policy->limit - told.now.remaining).raw("}");
}

ngx_int_t send_quota(ngx_http_request_t* r, const Quota& quota) noexcept {
  Page page(r);
  page.raw(R"({"tier":)");
  if (quota.tier == nullptr) {
    page.raw("null");
  } else {
    page.raw("\"").raw(view(quota.tier->name)).raw("\"");
  }
  page.raw(R"(,"limits":[)");
  for (const Told& told : quota.limits) {
    page.raw(&told == quota.limits.begin() ? "" : ",");
    write_limit(page, told);
  }
  page.raw("],");
  write_concurrency(page, quota.concurrency);
  if (quota.tier != nullptr && quota.tier->docs.len != 0) {
    page.raw(R"(,"documentation":")").escaped(view(quota.tier->docs)).raw("\"");
  }
  page.raw("}\n");
  return page.send();
}

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
  for (const Limit* limit : loc_conf(r)->shown) {
    if (const ngx_int_t rc = add_limit(r, *limit, quota); rc != NGX_DECLINED) {
      return rc;
    }
  }
  state->tier = quota.tier;
  return send_quota(r, quota);
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
