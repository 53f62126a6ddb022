// Headers: those that came with a request are found, those of its answer pushed and taken back.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// The first of this name, which is in lower case; empty: there is none.
std::string_view find_header(const ngx_http_request_t* r, std::string_view lower) noexcept;

// Whether some header of this name, which is in lower case, has a value that fits(value).
template <class Fits>
bool any_header(const ngx_http_request_t* r, std::string_view lower, const Fits& fits) noexcept {
  bool found = false;
  each_of<ngx_table_elt_t>(r->headers_in.headers, [&](const ngx_table_elt_t& header) noexcept {
    found = lower_name(header) == lower && fits(view(header.value));
    return !found;
  });
  return found;
}

// Whether some cookie of this name has a value that fits(value). HTTP/2 may bring each cookie as a
// line of its own (RFC 9113, 8.2.3).
template <class Fits>
bool any_cookie(const ngx_http_request_t* r, std::string_view name, const Fits& fits) noexcept {
  return any_header(r, "cookie", [&](std::string_view rest) noexcept {
    while (!rest.empty()) {
      const size_t end = std::min(rest.find(';'), rest.size());
      std::string_view pair = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      pair.remove_prefix(std::min(pair.find_first_not_of(' '), pair.size()));
      if (pair.size() > name.size() && pair.starts_with(name) && pair[name.size()] == '=' &&
          fits(pair.substr(name.size() + 1))) {
        return true;
      }
    }
    return false;
  });
}

// Whether the connection is TLS.
inline bool is_secure(const ngx_http_request_t* r) noexcept {
#if (NGX_HTTP_SSL)
  return r->connection->ssl != nullptr;
#else
  (void)r;
  return false;
#endif
}

// The value of an argument of the query, as it came. False: there is none.
bool find_argument(ngx_http_request_t* r, std::string_view name, std::string_view& value) noexcept;

// Whether an Origin (https://fetch.spec.whatwg.org/#origin-header) is this request's own host.
bool is_own_origin(const ngx_http_request_t* r, std::string_view origin) noexcept;

// What the body is encoded by, if that is not identity: empty if by nothing.
std::string_view encoding_of(const ngx_http_request_t* r) noexcept;

// Adds a response header. `key` must be a literal, `value` must live as long as the request.
// nullptr when memory ran out. An answer has many: where the list has room, none costs a call.
inline ngx_table_elt_t* push_header(ngx_http_request_t* r, std::string_view key,
                                    ngx_str_t value) noexcept {
  ngx_list_t& list = r->headers_out.headers;
  auto* header = list.last->nelts < list.nalloc
                     ? static_cast<ngx_table_elt_t*>(list.last->elts) + list.last->nelts++
                     : static_cast<ngx_table_elt_t*>(ngx_list_push(&list));
  if (header == nullptr) {
    return nullptr;
  }
  ngx_memzero(header, sizeof *header);
  header->hash = 1;
  header->key = str(key);
  header->value = value;
  header->lowcase_key = header->key.data;
  return header;
}

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
