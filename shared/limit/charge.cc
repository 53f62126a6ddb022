#include "shared/limit/charge.h"

#include <algorithm>

namespace penstock::limit {

int64_t retry_after_ns(std::span<const Charge> charges) noexcept {
  int64_t longest = 0;
  for (const Charge& charge : charges) {
    if (charge.advisory) {
      continue;
    }
    if (charge.decision.never()) {
      return kNever;
    }
    longest = std::max(longest, charge.decision.retry_after_ns);
  }
  return longest;
}

template Outcome charge_all(Table&, std::span<Charge>, const Instant&) noexcept;
template Outcome peek_all(const Table&, std::span<Charge>, const Instant&) noexcept;
template void refund_all(Table&, std::span<const Charge>, const Instant&) noexcept;
template void refund_one(Table&, const Policy&, const Hash128&, uint64_t, Admitted,
                         const Instant&) noexcept;
template Decision peek_refunded(const Table&, const Policy&, const Hash128&, uint64_t, Admitted,
                                const Instant&) noexcept;
template void settle_one(Table&, const Policy&, const Hash128&, uint64_t, uint64_t, Admitted,
                         const Instant&) noexcept;
template uint64_t renew_one(Table&, const Policy&, const Hash128&, uint64_t, uint64_t,
                            const Instant&) noexcept;
template bool reset_one(Table&, const Policy&, const Hash128&) noexcept;

}  // namespace penstock::limit
