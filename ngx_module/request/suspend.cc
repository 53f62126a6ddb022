#include "ngx_module/request/suspend.h"

namespace penstock {

bool suspend_phases(ngx_http_request_t* r, ngx_http_event_handler_pt on_event) noexcept {
  if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
    return false;
  }
  r->read_event_handler = ngx_http_test_reading;
  r->write_event_handler = on_event;
  return true;
}

void stay_suspended(ngx_http_request_t* r) noexcept {
  if (ngx_handle_write_event(r->connection->write, 0) != NGX_OK) {
    ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
  }
}

void resume_phases(ngx_http_request_t* r) noexcept {
  if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
    ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
    return;
  }
  r->read_event_handler = ngx_http_block_reading;
  r->write_event_handler = ngx_http_core_run_phases;
  ngx_http_core_run_phases(r);
}

}  // namespace penstock
