#include "worker/queue/text/log.h"

#include <string>

namespace penstock::queue {

void BoundedLog::line(Level level, std::string_view text, int64_t now_ns) {
  if (!bound_.admits(now_ns)) {
    return;
  }
  if (const uint64_t left_out = bound_.take_left_out(); left_out > 0) {
    log(level, std::to_string(left_out) + " more lines like these were left out");
  }
  log(level, text);
}

}  // namespace penstock::queue
