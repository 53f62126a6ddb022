// Charge: one limit of a request, what is asked of it and what it answered (charge.h).
#pragma once

#include <cstdint>

#include "shared/limit/policy.h"
#include "shared/limit/table.h"

namespace penstock::limit {

struct Charge {  // NOLINT(*Padding): in the order of what is asked, answered, and private
  Charge() noexcept = default;
  // NOLINTNEXTLINE(*UninitializedObject): `ref` is set when used
  [[gnu::always_inline]] Charge(const Policy* by, const Hash128& key, uint64_t units = 1,
                                bool only_advisory = false) noexcept
      : policy(by), hash(key), cost(units), advisory(only_advisory) {}

  const Policy* policy = nullptr;
  Hash128 hash;  // of the key under the limit's own secret (siphash.h)
  uint64_t cost = 1;
  bool advisory = false;  // charged if it admits; if not, the others go on without it

  // The answer. After admitted, it is what this charge left. After anything else, nothing was
  // charged: the limits with !admit are those that were exceeded, and for the others `remaining`
  // and `reset_ns` tell what there is without this request.
  Decision decision;
  bool charged = false;

  // Private to charge_all: where the state is. found says whether the key has a slot.
  bool found = false;
  Ref ref;
};

}  // namespace penstock::limit
