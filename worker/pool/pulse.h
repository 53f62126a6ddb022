// Pulse: says that this process lives, also while its engine is in the midst of a long step.
//
// The pool says HEARTBEAT between steps. A thread of this class says it where a step lasts: what
// the pool said last, and for how long the step has taken. So penstockd tells a long step from a
// process that hangs or was stopped, and bounds the step by a limit of its own.
#pragma once

#include <cstdint>
#include <thread>

#include "shared/base/clock.h"
#include "shared/base/mutex.h"
#include "shared/wire/messages.h"
#include "worker/pool/link.h"

namespace penstock {

class Pulse {
 public:
  // Each such time while a step lasts. The pool's own may have been a second before the step, and
  // the least heartbeat_timeout is two.
  static constexpr int64_t kPeriodNs = kNsPerSec / 4;

  // `link` outlives this.
  explicit Pulse(Link& link, int64_t period_ns = kPeriodNs);
  ~Pulse();
  Pulse(const Pulse&) = delete;
  Pulse& operator=(const Pulse&) = delete;

  // A turn of the pool begins, in which the engine makes a step; `said` is its last HEARTBEAT.
  void begin(int64_t now_ns, const wire::Heartbeat& said);
  void end();

 private:
  void beat();

  Link& link_;
  const int64_t period_ns_;
  Mutex mutex_;
  CondVar stopped_;
  bool over_ GUARDED_BY(mutex_) = false;
  int64_t begun_ns_ GUARDED_BY(mutex_) = 0;  // 0: between turns
  wire::Heartbeat said_ GUARDED_BY(mutex_);

  std::thread thread_;  // the last: it uses all of these
};

}  // namespace penstock
