#include "ngx_module/hand_over/stored_file.h"

#include "ngx_module/conf/text.h"
#include "ngx_module/reply/reply.h"

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

void put_back(ngx_http_request_t* r, const StoredFile& file) noexcept {
  r->method = file.method;
  r->method_name = file.method_name;
  r->uri = file.uri;
  r->args = file.args;
  r->exten = file.exten;
  r->internal = file.internal ? 1 : 0;
  r->keepalive = file.keepalive ? 1 : 0;
  r->loc_conf = file.loc_conf;
  ngx_http_update_location_config(r);
}

ngx_int_t refuse_gone(ngx_http_request_t* r) noexcept {
  find_state(r)->forget_answer();
  if (push_header(r, "Cache-Control", str("no-store")) == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  return refuse_request(
      r, {.status = 404, .detail = "The result is not there any more.", .code = "not_found"});
}

// Conditions and ranges are of GET (RFC 9110, sections 13.2.1 and 14.2); Nginx's filters do not
// look at the method.
ngx_int_t set_validators(ngx_http_request_t* r, const ngx_open_file_info_t& file) noexcept {
  if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) == 0) {
    r->disable_not_modified = 1;
    return NGX_OK;
  }
  r->allow_ranges = 1;
  r->headers_out.last_modified_time = file.mtime;
  return ngx_http_set_etag(r);
}

ngx_int_t send_file(ngx_http_request_t* r, const StoredFile& answer) noexcept {
  ngx_open_file_info_t file;
  ngx_str_t path = answer.path;
  if (const ngx_int_t rc = open_file(r, path, file); rc != NGX_OK) {
    return rc == NGX_DECLINED ? refuse_gone(r) : NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (const ngx_int_t rc = ngx_http_discard_request_body(r); rc != NGX_OK) {
    return rc;
  }
  r->headers_out.status = answer.status;
  r->headers_out.content_length_n = file.size;
  set_content_type(r, view(answer.type));
  ngx_buf_t* buf = whole(r, path, file);
  if (buf == nullptr || set_validators(r, file) != NGX_OK) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const ngx_int_t rc = ngx_http_send_header(r);
  if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
    return rc;
  }
  ngx_chain_t chain = {buf, nullptr};
  return ngx_http_output_filter(r, &chain);
}

}  // namespace

ngx_int_t turn_to_file(ngx_http_request_t* r, RequestState& state, std::string_view path,
                       ngx_str_t type) noexcept {
  if (path.front() != '/' || path.find("/../") != std::string_view::npos ||
      std::any_of(path.begin(), path.end(), is_control)) {
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "penstockd sent the name of no file");
    return NGX_HTTP_UPSTREAM_INVALID_HEADER;
  }
  auto* redirect = static_cast<ngx_table_elt_t*>(ngx_pcalloc(r->pool, sizeof(ngx_table_elt_t)));
  void* file = ngx_palloc(r->pool, sizeof(StoredFile));
  const ngx_str_t kept = copy(r->pool, path);
  if (redirect == nullptr || file == nullptr || kept.data == nullptr) {
    return NGX_ERROR;
  }
  state.file = new (file) StoredFile{.path = kept,
                                     .type = type,
                                     .status = r->upstream->headers_in.status_n,
                                     .method = r->method,
                                     .method_name = r->method_name,
                                     .uri = r->uri,
                                     .args = r->args,
                                     .exten = r->exten,
                                     .loc_conf = r->loc_conf,
                                     .internal = r->internal != 0,
                                     .keepalive = r->keepalive != 0};
  redirect->hash = 1;
  ngx_str_set(&redirect->value, "/");
  r->upstream->headers_in.x_accel_redirect = redirect;
  ++r->uri_changes;  // this one leads nowhere
  return NGX_OK;
}

ngx_int_t serve_stored_file(ngx_http_request_t* r) noexcept {
  RequestState* state = r->internal ? find_state(r) : nullptr;
  if (state == nullptr || state->file == nullptr) {
    return NGX_DECLINED;
  }
  const StoredFile& answer = *state->file;
  state->file = nullptr;  // an error_page may lead to where another answer is wanted
  put_back(r, answer);
  return send_file(r, answer);
}

}  // namespace penstock
