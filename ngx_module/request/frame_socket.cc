#include "ngx_module/request/frame_socket.h"

#include <sys/socket.h>

namespace penstock {
namespace {

ngx_int_t this_peer(ngx_peer_connection_t*, void*) noexcept { return NGX_OK; }

}  // namespace

bool FrameSocket::open(void* data, ngx_event_handler_pt on_read,
                       ngx_event_handler_pt on_write) noexcept {
  peer.sockaddr = reinterpret_cast<sockaddr*>(&address);
  peer.socklen = sizeof address;
  peer.name = &name;
  peer.get = this_peer;
  peer.log_error = NGX_ERROR_IGNORE_ECONNRESET;
  ngx_log_t quiet = *ngx_cycle->log;
  quiet.log_level = NGX_LOG_EMERG;
  peer.log = &quiet;
  const ngx_int_t rc = ngx_event_connect_peer(&peer);
  peer.log = ngx_cycle->log;
  if (rc != NGX_OK && rc != NGX_AGAIN) {
    peer.connection = nullptr;
    return false;
  }
  ngx_connection_t* c = peer.connection;
  c->log = c->read->log = c->write->log = ngx_cycle->log;
  c->data = data;
  c->idle = 1;
  c->read->handler = on_read;
  c->write->handler = on_write;
  return true;
}

void FrameSocket::close() noexcept {
  if (peer.connection != nullptr) {
    ngx_close_connection(peer.connection);
    peer.connection = nullptr;
  }
}

}  // namespace penstock
