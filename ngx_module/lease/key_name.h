// KeyName: what a limit's key is called in Redis, on the stack; and which of the scripts keeps it.
#pragma once

#include "ngx_module/nginx.h"
#include "shared/limit/policy.h"

namespace penstock {

inline bool is_concurrency(const limit::Policy& policy) noexcept {
  return policy.alone == limit::Algorithm::concurrency;
}
// Of each unit Redis knows who took it.
inline bool is_log(const limit::Policy& policy) noexcept {
  return policy.alone == limit::Algorithm::sliding_log || is_concurrency(policy);
}

// "PREFIX:1:KIND:{HASH}"; of a cluster, the braces have the slot.
class KeyName {
 public:
  KeyName(std::string_view prefix, const limit::Policy& policy,
          const limit::Hash128& key) noexcept {
    print(prefix,
          policy.algorithm == limit::Algorithm::leased ? "l:"
          : is_log(policy)                             ? "g:"
                                                       : "w:",
          key);
  }
  // Of no kind: for its slot.
  explicit KeyName(const limit::Hash128& key) noexcept { print("", "", key); }
  operator std::string_view() const noexcept {  // NOLINT(google-explicit-constructor)
    return {reinterpret_cast<const char*>(text_), size_};
  }

 private:
  void print(std::string_view prefix, const char* kind, const limit::Hash128& key) noexcept {
    u_char* end = ngx_snprintf(text_, sizeof text_, "%*s%s{%016xL%016xL}", prefix.size(),
                               prefix.data(), kind, key.hi, key.lo);
    size_ = static_cast<size_t>(end - text_);
  }

  u_char text_[160];
  size_t size_;
};

}  // namespace penstock
