// penstock_verify: where a browser's page brings the answer to a challenge, as a form of two
// fields: `altcha`, the payload, and `to`, where it wanted to go. It is sent there (303) with a
// pass as its cookie; a wrong answer is a 403.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// Reads the directive.
char* read_verify(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
