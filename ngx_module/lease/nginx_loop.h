// NginxLoop: Nginx's event loop, as a connection to Redis needs it.
#pragma once

#include "ngx_module/nginx.h"
#include "shared/redis/loop.h"

namespace penstock {

class NginxLoop final : public redis::Loop {
 public:
  NginxLoop() noexcept;
  bool open(int fd, redis::Events& events) noexcept override;
  void want(bool reading, bool writing) noexcept override;
  void close() noexcept override;
  void set_timer(redis::Events& events, int64_t after_ms) noexcept override;
  void clear_timer() noexcept override;

 private:
  ngx_connection_t* connection_ = nullptr;
  redis::Events* events_ = nullptr;
  ngx_event_t timer_{};
};

}  // namespace penstock
