#include "ngx_module/stored_file.h"

#include "ngx_module/page.h"
#include "ngx_module/reply.h"

namespace penstock {
namespace {

ngx_int_t open_file(ngx_http_request_t* r, ngx_str_t& path, ngx_open_file_info_t& file) noexcept {
  auto* core =
      static_cast<ngx_http_core_loc_conf_t*>(ngx_http_get_module_loc_conf(r, ngx_http_core_module));
  ngx_memzero(&file, sizeof file);
  file.read_ahead = core->read_ahead;
  file.directio = core->directio;
  file.valid = core->open_file_cache_valid;
  file.min_uses = core->open_file_cache_min_uses;
  file.errors = core->open_file_cache_errors;
  file.events = core->open_file_cache_events;
  if (ngx_open_cached_file(core->open_file_cache, &path, &file, r->pool) == NGX_OK &&
      file.is_file != 0) {
    return NGX_OK;
  }
  ngx_log_error(NGX_LOG_ERR, r->connection->log, file.err, "result \"%V\" cannot be opened: %s",
                &path, file.failed == nullptr ? "it is no file" : file.failed);
  return file.err == NGX_ENOENT ? NGX_DECLINED : NGX_ERROR;
}

ngx_buf_t* whole(ngx_http_request_t* r, ngx_str_t& path,
                 const ngx_open_file_info_t& file) noexcept {
  auto* buf = static_cast<ngx_buf_t*>(ngx_calloc_buf(r->pool));
  if (buf == nullptr) {
    return nullptr;
  }
  buf->file = static_cast<ngx_file_t*>(ngx_pcalloc(r->pool, sizeof(ngx_file_t)));
  if (buf->file == nullptr) {
    return nullptr;
  }
  buf->file_last = file.size;
  buf->in_file = file.size > 0 ? 1 : 0;
  buf->last_buf = r == r->main ? 1 : 0;
  buf->last_in_chain = 1;
  buf->sync = buf->last_buf != 0 || buf->in_file != 0 ? 0 : 1;
  buf->file->fd = file.fd;
  buf->file->name = path;
  buf->file->log = r->connection->log;
  buf->file->directio = file.is_directio;
  return buf;
}

// Where the request is now, as it would be asked for: its path, and its query as it came. data is
// nullptr when memory ran out.
ngx_str_t here(ngx_http_request_t* r) noexcept {
  const uintptr_t escapes = ngx_escape_uri(nullptr, r->uri.data, r->uri.len, NGX_ESCAPE_URI);
  const size_t size = r->uri.len + 2 * escapes + 1 + r->args.len;
  auto* start = static_cast<u_char*>(ngx_pnalloc(r->pool, size));
  if (start == nullptr) {
    return {0, nullptr};
  }
  auto* end = start + r->uri.len + 2 * escapes;
  if (escapes == 0) {
    ngx_memcpy(start, r->uri.data, r->uri.len);
  } else {
    ngx_escape_uri(start, r->uri.data, r->uri.len, NGX_ESCAPE_URI);
  }
  if (r->args.len > 0) {
    *end++ = '?';
    end = ngx_cpymem(end, r->args.data, r->args.len);
  }
  return {static_cast<size_t>(end - start), start};
}

}  // namespace

ngx_int_t turn_to_file(ngx_http_request_t* r, RequestState& state, std::string_view file,
                       ngx_str_t type) noexcept {
  if (file.front() != '/' || file.find("/../") != std::string_view::npos ||
      file.find('\0') != std::string_view::npos) {
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "penstockd sent the name of no file");
    return NGX_HTTP_UPSTREAM_INVALID_HEADER;
  }
  auto* redirect = static_cast<ngx_table_elt_t*>(ngx_pcalloc(r->pool, sizeof(ngx_table_elt_t)));
  const ngx_str_t kept = copy(r->pool, file);
  const ngx_str_t place = here(r);
  if (redirect == nullptr || kept.data == nullptr || place.data == nullptr) {
    return NGX_ERROR;
  }
  state.file = kept;
  state.file_type = type;
  state.file_status = r->upstream->headers_in.status_n;
  redirect->hash = 1;
  redirect->value = place;
  r->upstream->headers_in.x_accel_redirect = redirect;
  return NGX_OK;
}

ngx_int_t send_stored_file(ngx_http_request_t* r, RequestState& state) noexcept {
  ngx_open_file_info_t file;
  ngx_str_t path = state.file;
  state.file = {};  // an error_page may lead to where another answer is wanted
  if (const ngx_int_t rc = open_file(r, path, file); rc != NGX_OK) {
    return rc == NGX_DECLINED ? refuse_page(r, {.status = 404,
                                                .detail = "The result is not there any more.",
                                                .code = "not_found"})
                              : NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (const ngx_int_t rc = ngx_http_discard_request_body(r); rc != NGX_OK) {
    return rc;
  }
  r->headers_out.status = state.file_status;
  r->headers_out.content_length_n = file.size;
  r->headers_out.last_modified_time = file.mtime;
  r->allow_ranges = 1;
  set_content_type(r, view(state.file_type));
  if (ngx_http_set_etag(r) != NGX_OK) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  ngx_buf_t* buf = whole(r, path, file);
  if (buf == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const ngx_int_t rc = ngx_http_send_header(r);
  if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
    return rc;
  }
  ngx_chain_t chain = {buf, nullptr};
  return ngx_http_output_filter(r, &chain);
}

}  // namespace penstock
