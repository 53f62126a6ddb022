// ChargeResult: a charge with what the table has decided on it, as callers are told of it.
#pragma once

#include "ngx_module/conf/conf.h"

namespace penstock {

// Without default values, so that room for many of them costs nothing.
struct ChargeResult {
  const Bound* bound;
  const Limit* limit;
  const limit::Decision* decision;
  uint64_t cost;
  bool of_tier;
  bool exceeded;
  bool advisory;  // dry run: tells of nothing

  const Rule& rule() const noexcept { return *bound->counter->rule; }
};

}  // namespace penstock
