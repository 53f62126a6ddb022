// NginxLoop: Nginx's event loop, as a connection to Redis needs it.
#pragma once

#include "ngx_module/nginx.h"

#include <string>

#include "shared/redis/loop.h"

namespace penstock {

class NginxLoop final : public redis::Loop {
 public:
  NginxLoop() noexcept;
  ~NginxLoop() override;
  bool open(int fd, redis::Events& events) noexcept override;
  void want(bool reading, bool writing) noexcept override;
  void close() noexcept override;
  // By the `resolver` of http{}.
  bool find(std::string_view name, redis::Events& events) noexcept override;
  void set_timer(redis::Events& events, int64_t after_ms) noexcept override;
  void clear_timer() noexcept override;

 private:
  static void on_found(ngx_resolver_ctx_t* found) noexcept;

  ngx_connection_t* connection_ = nullptr;
  ngx_resolver_ctx_t* finding_ = nullptr;
  redis::Events* finder_ = nullptr;
  std::string name_;  // that is looked up
  ngx_event_t timer_{};
};

}  // namespace penstock
