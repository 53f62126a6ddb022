// An answer that lies in a file of penstockd's: Nginx serves it straight from disk, as its static
// module does, with ranges and all.
//
//   HEAD with `file` ──turn_to_file()──▶ the upstream is done with; an internal redirect ──▶
//   serve_stored_file(), the first that runs after it, answers
//
// The redirect only is Nginx's way out of an upstream. By itself it would be another request, a
// GET, that all phases judge anew where its path leads. So what the redirect has changed is put
// back, and nothing that the location says of requests is asked a second time.
#pragma once

#include "ngx_module/request/request.h"

namespace penstock {

// An answer that is a file, and the request as it stood when it came.
struct StoredFile {
  ngx_str_t path;
  ngx_str_t type;
  ngx_uint_t status;
  ngx_uint_t method;
  ngx_str_t method_name, uri, args, exten;
  void** loc_conf;
  bool internal, keepalive;
};

// For process_header: makes Nginx come to serve_stored_file(). The file's name must be absolute,
// and lead nowhere else; NGX_HTTP_UPSTREAM_INVALID_HEADER when it isn't.
ngx_int_t turn_to_file(ngx_http_request_t* r, RequestState& state, std::string_view path,
                       ngx_str_t type) noexcept;

// Handler of NGX_HTTP_SERVER_REWRITE_PHASE, before any other.
ngx_int_t serve_stored_file(ngx_http_request_t* r) noexcept;

}  // namespace penstock
