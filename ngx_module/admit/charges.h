// Charges: what a request is charged in one place at one stage. It lies on the stack, and only the
// charges that there are get written.
#pragma once

#include "ngx_module/request/request.h"

namespace penstock {

class Charges {
 public:
  // REQUIRES: `loc` is the request's, and lives as long as it.
  Charges(const LocConf& loc, Stage stage) noexcept : loc_(loc), stage_(stage) {}

  const LocConf& loc() const noexcept { return loc_; }
  Stage stage() const noexcept { return stage_; }
  // The zone and the table that hold all their counters. REQUIRES: the location has limits.
  Zone& zone() const noexcept { return *loc_.limits[0]->zone; }
  limit::Table& table() const noexcept { return *zone().table; }

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
    results_[count_++] = {&bound, &limit, &charge->decision, cost, of_tier, false, limit.dry_run};
  }
  std::span<limit::Charge> charges() noexcept {
    return {std::launder(reinterpret_cast<limit::Charge*>(memory_)), count_};
  }
  std::span<ChargeResult> results() noexcept { return {results_, count_}; }
  bool empty() const noexcept { return count_ == 0; }
  // What was charged and decided, so that it can be told later.
  void copy_from(Charges& other) noexcept {
    tier = other.tier;
    for (count_ = 0; count_ < other.count_; ++count_) {
      auto* charge =
          new (memory_ + count_ * sizeof(limit::Charge)) limit::Charge(other.charges()[count_]);
      results_[count_] = other.results_[count_];
      results_[count_].decision = &charge->decision;
    }
  }
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
  const LocConf& loc_;
  const Stage stage_;
  size_t count_ = 0;
  alignas(limit::Charge) std::byte memory_[kMaxCharges * sizeof(limit::Charge)];
  ChargeResult results_[kMaxCharges];
};

// Whether the location does something for the request, other than to show an error page.
inline bool does_work(ngx_http_request_t* r) noexcept {
  return static_cast<ngx_http_core_loc_conf_t*>(
             ngx_http_get_module_loc_conf(r, ngx_http_core_module))
             ->handler != nullptr;
}

// Notes which limits have judged the request, and that it is charged for them, or isn't.
void note_judged(RequestState& state, Charges& charges, bool charged) noexcept;

}  // namespace penstock
