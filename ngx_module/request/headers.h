// Headers: those that came with a request are found, those of its answer pushed and taken back.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// The first of this name, which is in lower case; empty: there is none.
std::string_view find_header(const ngx_http_request_t* r, std::string_view lower) noexcept;

// What the body is encoded by, if that is not identity: empty if by nothing.
std::string_view encoding_of(const ngx_http_request_t* r) noexcept;

// Adds a response header. `key` must be a literal, `value` must live as long as the request.
// nullptr when memory ran out.
ngx_table_elt_t* push_header(ngx_http_request_t* r, std::string_view key, ngx_str_t value) noexcept;

// Headers that were pushed are passed over by Nginx, and forgotten.
inline void take_back(ngx_table_elt_t*& header) noexcept {
  if (header != nullptr) {
    header->hash = 0;
    header = nullptr;
  }
}
template <size_t N>
void take_back(ngx_table_elt_t* (&headers)[N]) noexcept {
  for (ngx_table_elt_t*& header : headers) {
    take_back(header);
  }
}

}  // namespace penstock
