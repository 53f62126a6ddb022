// What a caller's limits are and what is left of them, as JSON: for GET /quota, and for the owner's
// stream (limits_events.h).
#pragma once

#include "ngx_module/conf/conf.h"
#include "ngx_module/reply/page.h"

namespace penstock {

struct Resolved;

class Quota {
 public:
  // The counters of the caller that `loc` shows. NGX_DECLINED: they are known; `unknown`: the limit
  // whose tier is none, and NGX_HTTP_FORBIDDEN; else NGX_HTTP_INTERNAL_SERVER_ERROR.
  struct UnknownTier {
    const Limit* limit = nullptr;
    std::string_view name;
  };
  ngx_int_t find(ngx_http_request_t* r, const LocConf& loc, UnknownTier& unknown) noexcept;
  // Reads how the counters stand, without charging anything. True: otherwise than the last time,
  // but for the time that has passed.
  bool look() noexcept;
  // As of the last look(); one line.
  void write(Page& page) const noexcept;

  const Tier* tier() const noexcept { return tier_; }
  size_t size() const noexcept { return told_.size(); }

 private:
  // One counter of the caller's.
  struct Told {
    const Zone* zone = nullptr;
    const Counter* counter = nullptr;
    const limit::Policy* policy = nullptr;
    limit::Hash128 place;
    limit::Decision now;

    bool is_concurrency() const noexcept { return counter->rule->kind == RuleKind::kConcurrency; }
  };
  bool add(ngx_http_request_t* r, const Limit& limit, const Resolved& found) noexcept;
  static void write_limit(Page& page, const Told& told) noexcept;
  void write_concurrency(Page& page) const noexcept;

  const Tier* tier_ = nullptr;
  ngx_str_t sign_in_{};     // where a browser may sign in with a key; empty: nowhere
  std::string_view owner_;  // of the key that it brings
  PoolArray<Told> told_;
};

}  // namespace penstock
