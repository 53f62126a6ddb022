// Token: the answer to a provider's challenge. penstockd asks the provider about it, and the
// request waits for that. What nobody can tell about goes by on_error=.
//
// A token is asked about once, whatever comes of it, and no more of one holder than answers to
// challenges are taken of it.
#pragma once

#include "ngx_module/challenge/pass.h"
#include "ngx_module/challenge/verify_line.h"
#include "ngx_module/request/request.h"

namespace penstock {

constexpr int64_t kTicketSeconds = 3600;  // in which a provider's page is to be answered

// kAsked: state.check is there, and maybe over. kWrong: it is no token that may be asked about.
// REQUIRES: a provider is asked here, and state.check is not there.
Answered ask_about(ngx_http_request_t* r, RequestState& state, const Limit& limit,
                   const challenge::Holder& holder, std::string_view token) noexcept;

// Acts on what is known of the token, once: gives the holder its pass, if it is good; later calls
// say the same again. kRight without a pass: nobody knows, and all go on. REQUIRES: check.over.
Answered settle_check(ngx_http_request_t* r, TokenCheck& check, const challenge::Keys& keys,
                      const challenge::Holder& holder) noexcept;

// What a browser carries away from a form whose token nobody could tell about: for kLifeSeconds it
// is treated by on_error=. False when memory ran out.
bool note_away(ngx_http_request_t* r, const challenge::Keys& keys,
               const challenge::Holder& holder) noexcept;

// Whether the request comes with that, or has found it out itself.
bool found_away(ngx_http_request_t* r, const Limit& limit, std::string_view who) noexcept;

// The same, where on_error=allow says that it goes on.
bool goes_on_without(ngx_http_request_t* r, const Limit& limit, std::string_view who) noexcept;

}  // namespace penstock
