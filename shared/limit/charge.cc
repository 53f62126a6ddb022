#include "shared/limit/charge.h"

#include <algorithm>

namespace penstock::limit {

int64_t retry_after_ns(std::span<const Charge> charges) noexcept {
  int64_t longest = 0;
  for (const Charge& charge : charges) {
    if (charge.decision.never()) {
      return kNever;
    }
    longest = std::max(longest, charge.decision.retry_after_ns);
  }
  return longest;
}

template Outcome charge_all(Table&, std::span<Charge>, int64_t) noexcept;
template Outcome peek_all(const Table&, std::span<Charge>, int64_t) noexcept;
template void refund_all(Table&, std::span<const Charge>, int64_t) noexcept;
template void refund_one(Table&, const GcraPolicy&, const Hash128&, uint64_t, uint64_t,
                         int64_t) noexcept;

}  // namespace penstock::limit
