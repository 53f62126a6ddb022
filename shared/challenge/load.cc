#include "shared/challenge/load.h"

#include <algorithm>
#include <bit>

namespace penstock::challenge {

int Load::extra(uint64_t solved, int64_t now_s) noexcept {
  constexpr int64_t kMinute = 60;
  if (minute_s_ < 0) {
    minute_s_ = raised_s_ = now_s;
    at_minute_ = solved;
  }
  const auto minutes = static_cast<uint64_t>(std::max<int64_t>(now_s - minute_s_, 0) / kMinute);
  if (minutes > 0) {
    // What came in several minutes is taken for even.
    last_ = (solved - at_minute_) / minutes;
    for (uint64_t i = 0; i < std::min(minutes, kParts); ++i) {
      usual_ = std::max(usual_ - usual_ / kParts + last_, kLeastUsual * kParts);
    }
    minute_s_ += static_cast<int64_t>(minutes) * kMinute;
    at_minute_ = solved;
  }
  const uint64_t most = std::max(last_, solved - at_minute_);
  const uint64_t times = most * kParts / usual_;
  const int due = times < 2 ? 0 : static_cast<int>(std::bit_width(times)) - 1;
  const auto fallen = static_cast<int>(std::min<int64_t>((now_s - raised_s_) / kMinute, raised_));
  if (due >= raised_ - fallen) {
    raised_ = due;
    raised_s_ = now_s;
  } else if (fallen > 0) {
    raised_ -= fallen;
    raised_s_ += fallen * kMinute;
  }
  return raised_;
}

}  // namespace penstock::challenge
