// SharedTime: how much of a server's time each job had, if all that run at once share it evenly.
//
// It is a clock that runs at 1/n of the real speed while n jobs run. A job's share is what the
// clock shows at its end, less what it showed at its start. All shares together are at most the
// time that passed.
#pragma once

#include <cstdint>

namespace penstock::http_engine {

class SharedTime {
 public:
  // Now `running` jobs run. Returns what the clock shows, in nanoseconds.
  double change(uint32_t running, int64_t now_ns) {
    if (running_ > 0) {
      shown_ns_ += static_cast<double>(now_ns - since_ns_) / running_;
    }
    since_ns_ = now_ns;
    running_ = running;
    return shown_ns_;
  }

 private:
  double shown_ns_ = 0;
  int64_t since_ns_ = 0;
  uint32_t running_ = 0;
};

}  // namespace penstock::http_engine
