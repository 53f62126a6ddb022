// Tell challenge: what a caller is told that is over a limit with action=challenge. A program gets
// a problem body with the challenge in it, a browser a small page that solves it.
#pragma once

#include "ngx_module/request/request.h"

namespace penstock {

// The body of the 403, and what `type` it is; pushes the headers that go with it. `violated`: the
// names of all limits that refused, as JSON. data is nullptr when memory ran out.
ngx_str_t tell_challenge(ngx_http_request_t* r, const RequestState& state, const Limit& limit,
                         std::string_view violated, std::string_view& type) noexcept;

}  // namespace penstock
