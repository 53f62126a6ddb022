#include "ngx_module/pages/quota_report.h"

#include <algorithm>

#include "ngx_module/admit/resolve.h"
#include "ngx_module/keys/known_key.h"
#include "ngx_module/pages/limit_report.h"

namespace penstock {

bool Quota::add(ngx_http_request_t* r, const Limit& limit, const Resolved& found) noexcept {
  for (const Bound& bound : *found.bounds) {
    const bool known = std::any_of(told_.begin(), told_.end(), [&](const Told& told) noexcept {
      return told.counter == bound.counter && !told.is_concurrency();
    });
    if (!known &&
        told_.push(
            r->pool,
            {limit.zone, bound.counter, &bound.policy, bound.counter->place_of(found.key), {}}) ==
            nullptr) {
      return false;
    }
  }
  return true;
}

ngx_int_t Quota::find(ngx_http_request_t* r, const LocConf& loc, UnknownTier& unknown) noexcept {
  sign_in_ = loc.sign_in_path;
  if (const KnownKey* const key = known_key(r); key != nullptr) {
    owner_ = key->owner;
  }
  for (const Limit* limit : loc.shown) {
    const Resolved found = resolve(r, *limit);
    if (found.kind == Resolved::Kind::kUnknownTier && !found.asked_body) {
      unknown = {limit, found.tier_name};
      return NGX_HTTP_FORBIDDEN;
    }
    if (found.kind == Resolved::Kind::kFailed) {
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    if (found.asked_body || found.kind == Resolved::Kind::kNobody) {
      continue;
    }
    tier_ = tier_ == nullptr ? found.tier : tier_;
    if (!add(r, *limit, found)) {
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
  }
  return NGX_DECLINED;
}

bool Quota::look() noexcept {
  bool differs = false;
  for (Told& told : told_) {
    const limit::Decision now = look_at(*told.zone, *told.policy, told.place);
    differs = differs || now.remaining != told.now.remaining;
    told.now = now;
  }
  return differs;
}

void Quota::write_limit(Page& page, const Told& told) noexcept {
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

// The tightest.
void Quota::write_concurrency(Page& page) const noexcept {
  const Told* tightest = nullptr;
  for (const Told& told : told_) {
    if (told.is_concurrency() &&
        (tightest == nullptr || told.now.remaining < tightest->now.remaining)) {
      tightest = &told;
    }
  }
  page.raw(R"("concurrency":)");
  if (tightest == nullptr) {
    page.raw("null");
    return;
  }
  page.raw(R"({"limit":)").number(tightest->policy->limit);
  page.raw(R"(,"in_use":)").number(tightest->policy->limit - tightest->now.remaining).raw("}");
}

void Quota::write(Page& page) const noexcept {
  page.raw(R"({"tier":)");
  if (tier_ == nullptr) {
    page.raw("null");
  } else {
    page.raw("\"").raw(view(tier_->name)).raw("\"");
  }
  page.raw(R"(,"limits":[)");
  bool first = true;
  for (const Told& told : told_) {
    if (!told.is_concurrency()) {
      page.raw(first ? "" : ",");
      write_limit(page, told);
      first = false;
    }
  }
  page.raw("],");
  write_concurrency(page);
  if (tier_ != nullptr && tier_->docs.len != 0) {
    page.raw(R"(,"documentation":")").escaped(view(tier_->docs)).raw("\"");
  }
  if (sign_in_.len != 0) {
    page.raw(R"(,"signed_in":{"at":")").escaped(view(sign_in_)).raw(R"(","owner":)");
    if (owner_.empty()) {
      page.raw("null}");
    } else {
      page.raw("\"").escaped(owner_).raw("\"}");
    }
  }
  page.raw("}\n");
}

}  // namespace penstock
