// Who gives an operator's order, for logs.
#pragma once

#include <string_view>

#include "ngx_module/nginx.h"

namespace penstock {

// "alice at 127.0.0.1": the user of basic authentication, if one is named, and the address. From
// the request: it may hold anything. False when memory ran out.
bool describe_who(ngx_http_request_t* r, std::string_view& who) noexcept;

}  // namespace penstock
