// What comes back from penstockd, made into an HTTP response: the callbacks of Nginx's upstream
// machinery.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// Until the answer begins: ACCEPTED, PROGRESS, then HEAD or FAILED.
ngx_int_t read_answer_head(ngx_http_request_t* r) noexcept;

// From then on, without buffering (bytes of the upstream's buffer go out before more is read) ...
ngx_int_t begin_answer(void* request) noexcept;
ngx_int_t read_answer(void* request, ssize_t bytes) noexcept;

// ... or with it (Nginx's event pipe reads ahead, to its temporary file if need be).
ngx_int_t read_answer_buffered(ngx_event_pipe_t* pipe, ngx_buf_t* buf) noexcept;

}  // namespace penstock
