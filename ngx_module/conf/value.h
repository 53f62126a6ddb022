// Value: what a directive's argument yields for a request.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// A value that a request yields. Most are one variable or a constant and are read without a copy.
struct Value {
  enum class Kind : uint8_t { kNone, kConstant, kVariable, kComplex };
  Kind kind = Kind::kNone;
  ngx_int_t index = 0;
  ngx_str_t constant{};
  ngx_http_complex_value_t complex{};
  ngx_str_t header{};  // $http_NAME: the header's name, in lower case
  ngx_uint_t header_hash = 0;
  // Whether the variable is Nginx's own, and not one of the configuration that has its name. Looked
  // up when it is first read.
  enum class Own : uint8_t { kUnknown, kNo, kYes };
  mutable Own own = Own::kUnknown;

  // False when memory ran out.
  bool get(ngx_http_request_t* r, std::string_view& out) const noexcept;
};

// Reads a directive's argument into `value`: a constant, one variable, or a mixture.
char* compile_value(ngx_conf_t* cf, ngx_str_t text, Value& value) noexcept;

}  // namespace penstock
