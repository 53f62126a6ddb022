// How fast counters grow, from one status of penstockd to the next.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace penstock::ctl {

class Rates {
 public:
  // "12.5 accepted/s, 3.0 completed/s": of those that grew since the last call; empty the first
  // time, and when nothing did. `json`: a STATUS answer.
  std::string since_last(const std::string& json, int64_t now_ns);

 private:
  std::map<std::string, double> counts_;
  int64_t told_ns_ = 0;
};

}  // namespace penstock::ctl
