#include "ngx_module/lease/nginx_loop.h"

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

// The descriptor is hiredis's, which closes it next.
void NginxLoop::close() noexcept {
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
