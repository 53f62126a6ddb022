// An answer that lies in a file of penstockd's: Nginx serves it straight from disk, as its static
// module does, with ranges and all.
//
//   HEAD with `file` ──turn_to_file()──▶ the upstream is done with; an internal redirect to the
//   same place ──▶ its content handler finds `state.file` ──▶ send_stored_file()
#pragma once

#include "ngx_module/request.h"

namespace penstock {

// For process_header: makes Nginx redirect the request. The file's name must be absolute, and lead
// nowhere else; NGX_HTTP_UPSTREAM_INVALID_HEADER when it isn't.
ngx_int_t turn_to_file(ngx_http_request_t* r, RequestState& state, std::string_view file,
                       ngx_str_t type) noexcept;

// For a content handler; return what it returns.
ngx_int_t send_stored_file(ngx_http_request_t* r, RequestState& state) noexcept;

}  // namespace penstock
