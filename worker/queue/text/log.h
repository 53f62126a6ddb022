// Log lines: "2026-11-22T10:20:30Z [warn] text" on stderr, where systemd and `make run` collect
// them.
//
// Nobody waits for the reader: a pipe, a socket or a terminal that takes no more loses lines. The
// next line that it takes comes behind a count of those. A file is written as it is.
#pragma once

#include <cstdint>
#include <string_view>

#include "shared/base/log_bound.h"

namespace penstock::queue {

enum class Level : uint8_t { kInfo, kWarn, kError };

// One line, written whole. What is no printable UTF-8 in `text` is shown as '?', so that no peer
// can forge a line.
void log(Level level, std::string_view text);

// Bounds the lines that a peer can cause: kPerSecond, and a count of those left out.
class BoundedLog {
 public:
  static constexpr uint32_t kPerSecond = 5;
  void line(Level level, std::string_view text, int64_t now_ns);

 private:
  LogBound bound_{kPerSecond, kPerSecond};
};

}  // namespace penstock::queue
