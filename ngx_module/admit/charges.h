// The charges of one request, on the stack; only as many as there are get written.
#pragma once

#include "ngx_module/request/rate_headers.h"

namespace penstock {

class Charges {
 public:
  // Starts fetching the counter's memory, which arrives while other keys are read.
  [[gnu::always_inline]] void add(const Limit& limit, const Bound& bound,
                                  const limit::Hash128& key_hash, uint64_t cost,
                                  bool of_tier) noexcept {
    if (count_ == kMaxCharges) {
      return;
    }
    auto* charge = new (memory_ + count_ * sizeof(limit::Charge))
        limit::Charge(&bound.policy, bound.counter->place_of(key_hash), cost, limit.dry_run);
    limit.zone->table->prefetch(charge->hash);
    judged_[count_++] = {
        bound.counter->rule, &bound, &limit, &charge->decision, cost, of_tier, false,
        limit.dry_run};
  }
  std::span<limit::Charge> charges() noexcept {
    return {std::launder(reinterpret_cast<limit::Charge*>(memory_)), count_};
  }
  std::span<Judged> judged() noexcept { return {judged_, count_}; }
  bool empty() const noexcept { return count_ == 0; }
  void clear() noexcept {
    count_ = 0;
    tier = nullptr;
    lasting = false;
    would_refuse = false;
  }
  const Tier* tier = nullptr;  // the caller's plan
  bool lasting = false;        // some are to be settled or released later
  bool would_refuse = false;   // a dry run would have, but not for being over its limit

 private:
  size_t count_ = 0;
  alignas(limit::Charge) std::byte memory_[kMaxCharges * sizeof(limit::Charge)];
  Judged judged_[kMaxCharges];
};

}  // namespace penstock
