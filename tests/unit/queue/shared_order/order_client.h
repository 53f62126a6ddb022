// A host's way to a shared order, each request waited for.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "shared/base/clock.h"
#include "shared/base/event_loop.h"
#include "worker/queue/shared_order/redis_loop.h"
#include "worker/queue/shared_order/shared_order.h"

namespace penstock::queue {

class OrderClient final : redis::Servers::User {
 public:
  explicit OrderClient(const std::string& socket)
      : loops_(events_),
        servers_(
            {.prefix = "test",
             .layout = order_script::kLayout,
             .scripts = order_script::all(),
             .host = SharedOrder::new_host(),
             .patience_ms = 1000,
             .counts_hosts = false},
            {.addresses = {{.path = socket}}}, [this] { return loops_.make(); }, *this) {
    servers_.start();
  }

  redis::Servers& servers() { return servers_; }
  std::unique_ptr<redis::Loop> loop() { return loops_.make(); }

  // Turns the loop until it is so. False: not within ten seconds.
  bool until(const std::function<bool()>& is_so) {
    const int64_t end_ns = monotonic_ns() + 10 * kNsPerSec;
    while (!is_so()) {
      const int64_t now_ns = monotonic_ns();
      if (now_ns > end_ns) {
        return false;
      }
      events_.run_once(now_ns, std::min({loops_.next_event(), now_ns + 10 * kNsPerMs, end_ns}));
      loops_.advance_to(monotonic_ns());
    }
    return true;
  }
  bool until_ready() {
    return until([this] { return servers_.ready("x"); });
  }

  // The answer to what `asks` asks for. Throws where there is none, or a wrong one.
  template <typename T, typename Asks>
  T get(Asks&& asks) {
    std::optional<SharedOrder::Answer<T>> answer;
    std::string why;
    const auto then = [&](SharedOrder::Answer<T>& told) {
      why = told.why;
      answer = std::move(told);
    };
    if (!until_ready() || !asks(SharedOrder::Then<T>(then)) ||
        !until([&] { return answer.has_value(); })) {
      throw std::runtime_error("no answer: " + lost_);
    }
    if (!*answer) {
      throw std::runtime_error("refused, or unknown: " + why + lost_);
    }
    return std::move(answer->value);
  }

  const std::string& lost() const { return lost_; }

 private:
  void on_ready(std::string_view) noexcept override { lost_.clear(); }
  void on_lost(std::string_view why) noexcept override { lost_ = why; }
  void on_hosts(uint64_t) noexcept override {}

  EventLoop events_ = std::move(*EventLoop::create());
  RedisLoops loops_;
  std::string lost_;
  redis::Servers servers_;
};

}  // namespace penstock::queue
