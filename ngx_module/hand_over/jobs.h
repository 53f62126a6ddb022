// penstock_jobs: where callers see their jobs. What is asked goes to penstockd, which knows whose
// job is whose; the answer comes back by Nginx's upstream machinery, as a job's own does.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// The content handler of a location with penstock_jobs.
ngx_int_t ask_about_jobs(ngx_http_request_t* r) noexcept;

// The same in a location with penstock_console, for what penstockd answers operators. What may be
// asked there is the caller's to judge.
ngx_int_t ask_as_operator(ngx_http_request_t* r) noexcept;

// Tells each penstock_pass where its callers see their jobs; all locations are known now.
void bind_jobs(ngx_conf_t* cf) noexcept;

}  // namespace penstock
