// Resolve: finds the counters that a limit charges for a request. Key and tier are variables, and
// some variables depend on the body.
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

// Reads a value, and forgets what depended on the body. In a value of several variables each is
// asked for alone first: else one that depends on the body would take along those behind it.
inline bool read_value(ngx_http_request_t* r, const Value& value, KnownVariables* known,
                       std::string_view& out) noexcept {
  if (known == nullptr) [[likely]] {
    return value.get(r, out);
  }
  if (value.kind == Value::Kind::kComplex) {
    constexpr auto kEnd = static_cast<ngx_uint_t>(-1);
    for (const ngx_uint_t* i = value.complex.flushes; i != nullptr && *i != kEnd; ++i) {
      ngx_http_get_indexed_variable(r, *i);
      known->forget_later();
    }
  }
  const bool read = value.get(r, out);
  known->forget_later();
  return read;
}

// Inlined, so that what is found stays in registers: every limit of every request is resolved.
[[gnu::always_inline]] inline Resolved resolve(ngx_http_request_t* r, const Limit& limit) noexcept {
  const bool of_tier = limit.tier.kind != Value::Kind::kNone;
  Resolved found;
  std::string_view key;
  KnownVariables* known = nullptr;
  if (RequestState* before = find_state(r); before != nullptr) {
    before->body_wanted = false;
    known = before->known;
  }
  if (!read_value(r, limit.key, known, key) ||
      (of_tier && !read_value(r, limit.tier, known, found.tier_name))) {
    return found;
  }
  if (const RequestState* state = find_state(r); state != nullptr) {  // the key may have made one
    found.asked_body = state->body_wanted;
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
