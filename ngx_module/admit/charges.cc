#include "ngx_module/admit/charges.h"

namespace penstock {

void note_judged(RequestState& state, Charges& charges, bool charged) noexcept {
  state.judged_in[static_cast<size_t>(charges.stage())] = &charges.loc();
  const bool first = state.met.empty();
  const unsigned marks = charged ? MetLimits::kJudged | MetLimits::kCharged : MetLimits::kJudged;
  const Limit* last = nullptr;  // the rules of one plan come together
  for (const ChargeResult& j : charges.results()) {
    if (j.limit == last) {
      continue;
    }
    last = j.limit;
    if (first) {
      state.met.push(last, marks);
    } else {
      state.met.add(last, marks);
    }
  }
}

}  // namespace penstock
