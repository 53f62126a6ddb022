// Whose the key is that a request brings: as Authorization: Bearer KEY, as X-Api-Key or Api-Key, or
// by the cookie of who has signed in with it. The first of these that is there counts.
//
// The cookie, "__Host-penstock-key" over TLS and "penstock-key" over plain http, is a pass
// (shared/challenge/pass.h) whose holder and id are the first half of the key's digest. So it is no
// key, it ends with the key, and what the key may do is what it may do. It counts only in a request
// that is_from_here().
#pragma once

#include "ngx_module/request/known_key.h"
#include "ngx_module/request/request.h"

namespace penstock {

// Found once for each request. nullptr: there is no penstock_keys, or memory ran out.
const KnownKey* known_key(ngx_http_request_t* r) noexcept;

// Sets the cookie of a key that is known, good for `seconds` at most; takes it away.
// False when memory ran out, or
// the key has just ended.
bool sign_in(ngx_http_request_t* r, const KnownKey& key, int64_t seconds) noexcept;
bool sign_out(ngx_http_request_t* r) noexcept;

// penstock_require_key: 401 for who brings no key that is known. For the access phase, so that
// `satisfy any` may let in by other means.
ngx_int_t require_key(ngx_http_request_t* r) noexcept;

}  // namespace penstock
