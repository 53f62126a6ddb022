// penstock_ui: the page for people: what they may ask, what becomes of it, and what they have left.
//
// Its files are Nginx's own to serve, by its static module, from the folder `root=`. Here they get
// what a browser needs to be safe with them: a policy that lets nothing in from elsewhere and no
// text become script, types that are not guessed, and the session by which the page's own jobs are
// known. The policy's one script policy, "penstock", makes URLs of the page's own workers.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// Reads the directive.
char* read_ui(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
