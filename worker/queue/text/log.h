// The log of penstockd (shared/base/log.h).
#pragma once

#include <cstdint>
#include <string_view>

#include "shared/base/log.h"
#include "shared/base/log_bound.h"

namespace penstock::queue {

using Level = LogLevel;

inline void log(Level level, std::string_view text, LogFields fields = {}) {
  write_log(level, text, fields);
}

// Bounds the lines that a peer can cause: kPerSecond, and a count of those left out.
class BoundedLog {
 public:
  static constexpr uint32_t kPerSecond = 5;
  void line(Level level, std::string_view text, int64_t now_ns);

 private:
  LogBound bound_{kPerSecond, kPerSecond};
};

}  // namespace penstock::queue
