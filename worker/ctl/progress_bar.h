// A line that tells how far something has come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace penstock::ctl {

struct Progress {
  size_t all = 0;
  size_t done = 0;
  size_t failed = 0;       // of these
  size_t at_work = 0;      // sent, and not answered yet
  int64_t waiting_s = 0;   // until the edge lets the next in; 0: it does
  size_t done_before = 0;  // by an earlier run
  double seconds = 0;      // since this one began
};

// "[#########---------------------]  15/50, 1 failed, 4 at work, about 2 min left"
std::string progress_bar(const Progress& progress);

}  // namespace penstock::ctl
