// The headers of an answer. All of them belong to the present try: another try takes them back.
#pragma once

#include "ngx_module/request/request.h"
#include "shared/wire/messages.h"

namespace penstock {

// Adds the headers that name the job and say when to come again (0: they do not say). False when
// memory ran out.
bool push_answer_headers(ngx_http_request_t* r, RequestState& state,
                         int64_t retry_after_s) noexcept;

// Adds the other headers that penstockd gives the answer: `lines` as on the wire. A Location goes
// out as it came: a path stays a path. NGX_HTTP_UPSTREAM_INVALID_HEADER if a line is no header.
ngx_int_t push_given_headers(ngx_http_request_t* r, RequestState& state,
                             std::string_view lines) noexcept;
// The same of a refusal, which may have few of them; the others are passed over.
ngx_int_t push_refusal_headers(ngx_http_request_t* r, RequestState& state,
                               std::string_view lines) noexcept;

// Adds Server-Timing: how long the limits took, the queue, and the engine until its head. False
// when memory ran out.
bool push_timing(ngx_http_request_t* r, RequestState& state, const wire::Head& head) noexcept;

// Adds the headers that keep an answer harmless in a browser, whoever made it up: it has the type
// that it says, runs nothing, loads nothing, belongs to no other site, and is saved, not shown,
// unless its type is inert. False when memory ran out. REQUIRES: it has a body.
bool push_guards(ngx_http_request_t* r, RequestState& state, std::string_view type,
                 bool streams) noexcept;

// Adds the headers of an answer that streams, so that no proxy on the way holds it back or keeps
// it. False when memory ran out.
bool push_stream_headers(ngx_http_request_t* r, RequestState& state) noexcept;

}  // namespace penstock
