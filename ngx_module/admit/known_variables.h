// KnownVariables: what variables were known before one was asked for that hangs on the body.
//
// Nginx keeps what a variable yielded, and so does a map of one: what hung on a body that was still
// to come, or on the model of a request that may be degraded, must not be kept. Whatever was
// evaluated before hung on neither, and is evaluated once, as its author expects ($request_id,
// js_set).
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

class KnownVariables {
 public:
  // REQUIRES: r outlives it.
  explicit KnownVariables(ngx_http_request_t* r) noexcept : r_(r) {}

  // Such a variable is asked for: from the first time on, all others that get a value may be made
  // of it.
  void note() noexcept;
  // Those are forgotten; what is noted next is noted anew.
  void forget_later() noexcept;

 private:
  static constexpr size_t kBits = 64;
  static constexpr ngx_uint_t kMost = 16384;  // more than a configuration has
  ngx_http_request_t* r_;
  size_t count_ = 0;  // 0: nothing was noted
  uint64_t known_[kMost / kBits];
};

}  // namespace penstock
