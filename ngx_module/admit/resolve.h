// Resolve: from a request and a limit to the counters that it is charged against. Key and tier are
// variables, and some of these hang on the body.
#pragma once

#include "ngx_module/admit/known_variables.h"
#include "ngx_module/request/request.h"

namespace penstock {

// Whom one limit counts, and by which counters.
struct Resolved {
  enum class Kind : uint8_t {
    kCounted,
    kNobody,       // its key is empty: the limit does not apply
    kUnknownTier,  // `tier_name` is none of those defined
    kFailed,       // memory ran out
  };
  Kind kind = Kind::kFailed;
  bool asked_body = false;  // a variable asked for what only the body tells, and it was not there
  limit::Hash128 key;       // under the zone's secret
  const Tier* tier = nullptr;  // the caller's plan; nullptr: the limit has a rule of its own
  const Bounds* bounds = nullptr;
  std::string_view tier_name;
};

// Inlined, so that what is found stays in registers: every limit of every request is resolved.
[[gnu::always_inline]] inline Resolved resolve(ngx_http_request_t* r, const Limit& limit) noexcept {
  const bool of_tier = limit.tier.kind != Value::Kind::kNone;
  Resolved found;
  std::string_view key;
  if (RequestState* before = find_state(r); before != nullptr) {
    before->body_wanted = false;
  }
  if (!limit.key.get(r, key) || (of_tier && !limit.tier.get(r, found.tier_name))) {
    return found;
  }
  if (const RequestState* state = find_state(r); state != nullptr) {
    found.asked_body = state->body_wanted;
    if (state->known != nullptr) {
      state->known->forget_later();
    }
  }
  if (key.empty()) {
    found.kind = Resolved::Kind::kNobody;
    return found;
  }
  found.key = limit.key.kind == Value::Kind::kConstant
                  ? limit.constant_hash
                  : limit::siphash13_128(limit.zone->key_secret, key);
  found.bounds = &limit.bounds;
  if (of_tier) {
    found.tier = find_named(main_conf(r)->tiers, found.tier_name);
    if (found.tier == nullptr) {
      found.kind = Resolved::Kind::kUnknownTier;
      return found;
    }
    found.bounds = &limit.tier_bounds[found.tier->index];
  }
  found.kind = Resolved::Kind::kCounted;
  return found;
}

}  // namespace penstock
