// KnownVariables: which variables had a value before one was asked for that depends on the body.
//
// Nginx keeps the value of a variable, and of a map of it. A value that depends on a body that is
// still to come, or on the model of a request that may be degraded, must not be kept. Variables
// that were evaluated before depend on neither: they are evaluated once, as their authors expect
// ($request_id, js_set).
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

class KnownVariables {
 public:
  // REQUIRES: r outlives it.
  explicit KnownVariables(ngx_http_request_t* r) noexcept : r_(r) {}

  // A variable that depends on the body is asked for. After the first of these calls, any variable
  // that gets a value may be made of it.
  void note() noexcept;
  // Forgets the values of those variables, and begins anew.
  void forget_later() noexcept;

 private:
  static constexpr size_t kBits = 64;
  static constexpr ngx_uint_t kMost = 16384;  // more than a configuration has
  ngx_http_request_t* r_;
  size_t count_ = 0;  // 0: nothing was noted
  uint64_t known_[kMost / kBits];
};

}  // namespace penstock
