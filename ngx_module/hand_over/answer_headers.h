// The headers of an answer. All of them are the try's at hand: another one takes them back.
#pragma once

#include "ngx_module/request/request.h"

namespace penstock {

// Whose job it is, and when to come again (0: nothing is said of that). False when memory ran out.
bool push_answer_headers(ngx_http_request_t* r, RequestState& state,
                         int64_t retry_after_s) noexcept;

// Those that penstockd gives the answer besides: `lines` as on the wire. A Location goes out as it
// came: a path stays one. NGX_HTTP_UPSTREAM_INVALID_HEADER if one of them is none.
ngx_int_t push_given_headers(ngx_http_request_t* r, RequestState& state,
                             std::string_view lines) noexcept;
// The same of a refusal, which may have few of them; the others are passed over.
ngx_int_t push_refusal_headers(ngx_http_request_t* r, RequestState& state,
                               std::string_view lines) noexcept;

// What keeps an answer harmless in a browser, whoever made it up: it is of the type that it says,
// runs nothing, loads nothing, belongs to no other site, and is saved, not shown, unless its type
// is inert. False when memory ran out. REQUIRES: it has a body.
bool push_guards(ngx_http_request_t* r, RequestState& state, std::string_view type,
                 bool streams) noexcept;

// Of an answer that streams: no proxy on the way holds it back, and none keeps it. False when
// memory ran out.
bool push_stream_headers(ngx_http_request_t* r, RequestState& state) noexcept;

}  // namespace penstock
