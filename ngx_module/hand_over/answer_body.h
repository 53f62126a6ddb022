// The body of an answer: frames become the bytes that go to the client, by one of the two ways that
// Nginx's upstream machinery has.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// Nginx's input_filter_init, once the head has gone out.
ngx_int_t begin_answer(void* request) noexcept;

// Its input_filter without buffering: bytes of the upstream's buffer go out before more is read.
ngx_int_t read_answer(void* request, ssize_t bytes) noexcept;

// With buffering: Nginx's event pipe reads ahead, to its temporary file if need be.
ngx_int_t read_answer_buffered(ngx_event_pipe_t* pipe, ngx_buf_t* buf) noexcept;

// The queue is lost while the caller hears of it: that is told, as the stream's end.
void end_in_waiting(ngx_http_request_t* r) noexcept;

}  // namespace penstock
