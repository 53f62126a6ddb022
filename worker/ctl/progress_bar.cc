#include "worker/ctl/progress_bar.h"

#include <fmt/format.h>
#include <cmath>

#include "worker/ctl/table.h"

namespace penstock::ctl {

std::string progress_bar(const Progress& progress) {
  constexpr size_t kWidth = 30;
  const size_t filled = progress.all == 0 ? kWidth : kWidth * progress.done / progress.all;
  std::string line = fmt::format("[{}{}]  {}/{}", std::string(filled, '#'),
                                 std::string(kWidth - filled, '-'), progress.done, progress.all);
  if (progress.failed > 0) {
    line += fmt::format(", {} failed", progress.failed);
  }
  line += fmt::format(", {} at work", progress.at_work);
  if (progress.waiting_s > 0) {
    line += ", told to wait " + duration(progress.waiting_s);
  }
  const size_t now_done = progress.done - progress.done_before;
  if (now_done > 0 && progress.done < progress.all) {
    const double left = progress.seconds / static_cast<double>(now_done) *
                        static_cast<double>(progress.all - progress.done);
    line += ", about " + duration(static_cast<int64_t>(std::ceil(left))) + " left";
  }
  return line;
}

}  // namespace penstock::ctl
