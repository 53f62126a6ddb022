#include "worker/pool/pulse.h"

#include <algorithm>
#include <string>

namespace penstock {

Pulse::Pulse(Link& link, int64_t period_ns)
    : link_(link), period_ns_(period_ns), thread_([this] { beat(); }) {}

Pulse::~Pulse() {
  {
    const MutexLock lock(mutex_);
    over_ = true;
  }
  stopped_.notify_one();
  thread_.join();
}

void Pulse::begin(int64_t now_ns, const wire::Heartbeat& said) {
  const MutexLock lock(mutex_);
  begun_ns_ = now_ns;
  said_ = said;
}

void Pulse::end() {
  const MutexLock lock(mutex_);
  begun_ns_ = 0;
}

void Pulse::beat() {
  std::string frame;
  const MutexLock lock(mutex_);
  for (;;) {
    const auto next = std::chrono::steady_clock::now() + std::chrono::nanoseconds(period_ns_);
    while (!over_ && stopped_.wait_until(mutex_, next)) {
    }
    if (over_) {
      return;
    }
    const int64_t step_ns = begun_ns_ == 0 ? 0 : monotonic_ns() - begun_ns_;
    if (step_ns < period_ns_) {
      continue;
    }
    wire::Heartbeat heartbeat = said_;
    heartbeat.step_ms = std::max(said_.step_ms, static_cast<uint64_t>(step_ns / kNsPerMs));
    frame.clear();
    wire::append(frame, 0, heartbeat);
    link_.send_beside(frame);
  }
}

}  // namespace penstock
