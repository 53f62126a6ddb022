// penstock_ui: the page for people: what they may ask, what becomes of it, and what they have left.
//
// Its files are Nginx's own to serve, by its static module, from the folder `root=`. Here they get
// what a browser needs to be safe with them: a policy that lets nothing in from elsewhere and no
// text become script, types that are not guessed, and the session by which the page's own jobs are
// known. The policy's one script policy, "penstock", makes URLs of the page's own workers.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// The type and the headers of a file of ours, which Nginx's static module serves. False when memory
// ran out.
bool prepare_file(ngx_http_request_t* r) noexcept;

// Where the files are unless root= says so.
constexpr std::string_view kPageRoot = "/usr/share/penstock/www";

// Reads the directive: penstock_ui UPSTREAM [root=PATH].
char* read_ui(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
