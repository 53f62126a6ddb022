// BoundedLog: lines that a program causes, as many as an operator can use; the rest is counted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "shared/base/clock.h"
#include "worker/pool/log.h"

namespace penstock::process {

class BoundedLog {
 public:
  static constexpr double kBurst = 100;     // lines at once
  static constexpr double kPerSecond = 10;  // and then so many
  static constexpr size_t kLineBytes = 1024;

  explicit BoundedLog(Log log) : log_(std::move(log)) {}

  void line(LogLevel level, std::string_view text, int64_t now_ns) {
    const double passed_s = static_cast<double>(now_ns - filled_ns_) / kNsPerSec;
    room_ = std::min(kBurst, room_ + std::max(0.0, passed_s) * kPerSecond);
    filled_ns_ = now_ns;
    if (room_ < 1) {
      ++left_out_;
      return;
    }
    room_ -= 1;
    say_left_out();
    log_(level, text.substr(0, kLineBytes));
  }

  // Tells of what was left out. A good time is when a job has ended.
  void say_left_out() {
    if (left_out_ > 0) {
      log_(LogLevel::kInfo,
           std::to_string(left_out_) + " lines of a program were left out: the log is bounded");
      left_out_ = 0;
    }
  }

 private:
  Log log_;
  double room_ = kBurst;
  int64_t filled_ns_ = 0;
  uint64_t left_out_ = 0;
};

}  // namespace penstock::process
