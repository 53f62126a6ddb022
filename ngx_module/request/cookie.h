// Cookie: the ones that this module sets and reads. Over TLS its name has "__Host-" before it, so
// that no other host, and no plain http, can set it (RFC 6265bis); over plain http it has not.
// Scripts never see it.
#pragma once

#include "ngx_module/request/headers.h"

namespace penstock {

struct Cookie {
  std::string_view host_name;  // "__Host-penstock-NAME"
  std::string_view same_site;  // "Lax", "Strict"
};

std::string_view name_of(const ngx_http_request_t* r, const Cookie& cookie) noexcept;

// Whether some cookie of this name has a value that fits(value).
template <class Fits>
bool any_cookie(const ngx_http_request_t* r, const Cookie& cookie, const Fits& fits) noexcept {
  return any_cookie(r, name_of(r, cookie), fits);
}

// Sets it for so many seconds, for all paths of the host; 0 takes it away. False when memory ran
// out.
bool set_cookie(ngx_http_request_t* r, const Cookie& cookie, std::string_view value,
                uint64_t seconds) noexcept;

}  // namespace penstock
