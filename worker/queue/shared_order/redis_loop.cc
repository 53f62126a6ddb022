#include "worker/queue/shared_order/redis_loop.h"

#include <fcntl.h>

#include <algorithm>

#include "shared/base/clock.h"

namespace penstock::queue {

class RedisLoops::One final : public redis::Loop, EventLoop::Handler {
 public:
  explicit One(RedisLoops& all) : all_(all) { all_.loops_.push_back(this); }
  ~One() override {
    close();
    all_.names_.leave(this);
    std::erase(all_.loops_, this);
  }

  bool open(int fd, redis::Events& events) noexcept override {
    events_ = &events;
    wanted_ = 0;
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);  // hiredis leaves it open, and an upgrade is an exec(2)
    fd_ = all_.events_.add(fd, 0, this) ? fd : -1;
    return fd_ >= 0;
  }
  void want(bool reading, bool writing) noexcept override {
    const uint32_t wanted = (reading ? uint32_t{EPOLLIN} : 0) | (writing ? uint32_t{EPOLLOUT} : 0);
    if (fd_ >= 0 && wanted != wanted_) {
      wanted_ = wanted;
      all_.events_.modify(fd_, wanted, this);
    }
  }
  void close() noexcept override {
    all_.names_.forget(this);
    if (fd_ >= 0) {
      all_.events_.remove(fd_, this);
      fd_ = -1;
    }
  }
  bool find(std::string_view name, redis::Events& events) noexcept override {
    return all_.names_.find(this, std::string(name),
                            [&events](std::string_view ip) { events.on_found(ip); });
  }
  void set_timer(redis::Events& events, int64_t after_ms) noexcept override {
    timed_ = &events;
    due_ns = monotonic_ns() + after_ms * kNsPerMs;
  }
  void clear_timer() noexcept override { due_ns = INT64_MAX; }

  void on_time() noexcept {
    due_ns = INT64_MAX;
    timed_->on_time();
  }

  int64_t due_ns = INT64_MAX;

 private:
  void on_events(uint32_t events) override {
    all_.on_event_();
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) {
      events_->on_readable();
    }
    if (fd_ >= 0 && (events & EPOLLOUT) != 0) {
      events_->on_writable();
    }
  }

  RedisLoops& all_;
  redis::Events* events_ = nullptr;
  redis::Events* timed_ = nullptr;
  int fd_ = -1;
  uint32_t wanted_ = 0;
};

std::unique_ptr<redis::Loop> RedisLoops::make() { return std::make_unique<One>(*this); }

void RedisLoops::advance_to(int64_t now_ns) {
  const std::vector<One*> before = loops_;  // one may end others, and make new ones
  for (One* const each : before) {
    if (std::find(loops_.begin(), loops_.end(), each) != loops_.end() && each->due_ns <= now_ns) {
      each->on_time();
    }
  }
}

int64_t RedisLoops::next_event() const {
  int64_t next_ns = INT64_MAX;
  for (const One* const each : loops_) {
    next_ns = std::min(next_ns, each->due_ns);
  }
  return next_ns;
}

}  // namespace penstock::queue
