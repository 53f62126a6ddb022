#include "ngx_module/admit/known_variables.h"

#include <utility>

namespace penstock {

void KnownVariables::note() noexcept {
  if (count_ != 0) {
    return;
  }
  const auto* core = static_cast<ngx_http_core_main_conf_t*>(
      ngx_http_get_module_main_conf(r_, ngx_http_core_module));
  count_ = ngx_min(core->variables.nelts, kMost);
  for (size_t i = 0; i < count_; i += kBits) {
    uint64_t known = 0;
    for (size_t bit = 0; bit < ngx_min(kBits, count_ - i); ++bit) {
      const ngx_http_variable_value_t& value = r_->variables[i + bit];
      known |= uint64_t{value.valid != 0 || value.not_found != 0} << bit;
    }
    known_[i / kBits] = known;
  }
}

void KnownVariables::forget_later() noexcept {
  for (size_t i = 0, count = std::exchange(count_, 0); i < count; ++i) {
    if ((known_[i / kBits] >> i % kBits & 1) == 0) {
      r_->variables[i].valid = 0;
      r_->variables[i].not_found = 0;
    }
  }
}

}  // namespace penstock
