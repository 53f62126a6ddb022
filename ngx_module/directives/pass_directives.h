// penstock_pass, penstock_jobs, and what goes with a job.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

char* read_pass(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_jobs(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_dedupe(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
// penstock_owner, penstock_share: a Value that stands at the command's offset.
char* read_value(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_waiting_events(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_earlier(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_busy(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_origins(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
