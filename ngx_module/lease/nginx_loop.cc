#include "ngx_module/lease/nginx_loop.h"

#include <utility>

#include "ngx_module/conf/text.h"

namespace penstock {
namespace {

redis::Events* events_of(const ngx_event_t* event) noexcept {
  return static_cast<redis::Events*>(static_cast<ngx_connection_t*>(event->data)->data);
}

void on_read(ngx_event_t* event) noexcept { events_of(event)->on_readable(); }
void on_write(ngx_event_t* event) noexcept { events_of(event)->on_writable(); }
void on_timer(ngx_event_t* event) noexcept { static_cast<redis::Events*>(event->data)->on_time(); }

// Level-triggered, for hiredis reads a part of what there is.
void switch_to(ngx_event_t* event, ngx_int_t kind, bool on) noexcept {
  if (on && !event->active) {
    ngx_add_event(event, kind, 0);
  } else if (!on && event->active) {
    ngx_del_event(event, kind, 0);
  }
}

}  // namespace

NginxLoop::NginxLoop() noexcept {
  timer_.handler = on_timer;
  timer_.cancelable = 1;
}

NginxLoop::~NginxLoop() {
  close();
  clear_timer();
}

bool NginxLoop::open(int fd, redis::Events& events) noexcept {
  connection_ = ngx_get_connection(fd, ngx_cycle->log);
  if (connection_ == nullptr) {
    return false;
  }
  connection_->data = &events;
  connection_->log = connection_->read->log = connection_->write->log = ngx_cycle->log;
  connection_->read->handler = on_read;
  connection_->write->handler = on_write;
  return true;
}

void NginxLoop::want(bool reading, bool writing) noexcept {
  if (connection_ != nullptr) {
    switch_to(connection_->read, NGX_READ_EVENT, reading);
    switch_to(connection_->write, NGX_WRITE_EVENT, writing);
  }
}

bool NginxLoop::find(std::string_view name, redis::Events& events) noexcept {
  constexpr ngx_msec_t kPatienceMs = 1000;
  const auto* http =
      reinterpret_cast<ngx_http_conf_ctx_t*>(ngx_get_conf(ngx_cycle->conf_ctx, ngx_http_module));
  const auto* core =
      static_cast<ngx_http_core_loc_conf_t*>(http->loc_conf[ngx_http_core_module.ctx_index]);
  ngx_resolver_ctx_t* finding = ngx_resolve_start(core->resolver, nullptr);
  if (finding == nullptr || finding == NGX_NO_RESOLVER) {
    return false;
  }
  name_ = name;
  finding->name = str(name_);
  finding->handler = on_found;
  finding->data = this;
  finding->timeout = kPatienceMs;
  finding->cancelable = 1;
  finder_ = &events;
  finding_ = finding;
  if (ngx_resolve_name(finding) != NGX_OK) {  // it has freed it
    finding_ = nullptr;
    return false;
  }
  return true;
}

void NginxLoop::on_found(ngx_resolver_ctx_t* found) noexcept {
  auto& self = *static_cast<NginxLoop*>(found->data);
  u_char ip[NGX_SOCKADDR_STRLEN];
  const size_t size =
      found->state == NGX_OK && found->naddrs > 0
          ? ngx_sock_ntop(found->addrs[0].sockaddr, found->addrs[0].socklen, ip, sizeof ip, 0)
          : 0;
  self.finding_ = nullptr;
  ngx_resolve_name_done(found);
  self.finder_->on_found({reinterpret_cast<char*>(ip), size});
}

// The descriptor is hiredis's, which closes it next.
void NginxLoop::close() noexcept {
  if (finding_ != nullptr) {
    ngx_resolve_name_done(std::exchange(finding_, nullptr));
  }
  ngx_connection_t* c = connection_;
  if (c == nullptr) {
    return;
  }
  connection_ = nullptr;
  if (ngx_del_conn != nullptr) {
    ngx_del_conn(c, 0);
  } else {
    switch_to(c->read, NGX_READ_EVENT, false);
    switch_to(c->write, NGX_WRITE_EVENT, false);
  }
  if (c->read->posted) {
    ngx_delete_posted_event(c->read);
  }
  if (c->write->posted) {
    ngx_delete_posted_event(c->write);
  }
  c->read->closed = c->write->closed = 1;
  ngx_free_connection(c);
  c->fd = static_cast<ngx_socket_t>(-1);
}

void NginxLoop::set_timer(redis::Events& events, int64_t after_ms) noexcept {
  timer_.data = &events;
  timer_.log = ngx_cycle->log;
  if (timer_.timer_set) {
    ngx_del_timer(&timer_);
  }
  ngx_add_timer(&timer_, static_cast<ngx_msec_t>(after_ms));
}

void NginxLoop::clear_timer() noexcept {
  if (timer_.timer_set) {
    ngx_del_timer(&timer_);
  }
}

}  // namespace penstock
