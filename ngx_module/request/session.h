// Session: who a browser is that has no key. It is a random cookie, so whoever holds it owns the
// jobs that were sent with it; the address stays what limits count, as a new cookie costs nothing.
//
//   over TLS     __Host-penstock-session   no other host, and no plain http, can set it (RFC
//   6265bis) plain http   penstock-session
//
// 128 random bits are its whole text: it cannot be guessed, and nothing is kept of it here.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// Whether a page of this host asks, by Sec-Fetch-Site, else by Origin. A GET that tells neither, as
// over plain http, may be one's: no page of another host can read its answer.
bool is_from_here(const ngx_http_request_t* r) noexcept;

// "session:TEXT", empty if there is none. A cookie counts only in a request that is_from_here(); in
// others it is passed over.
std::string_view session_of(ngx_http_request_t* r) noexcept;

// Sets the cookie for 30 days: the one that came, or a new one. False when memory ran out, or no
// random bits came.
bool renew_session(ngx_http_request_t* r) noexcept;

}  // namespace penstock
