// EdgeVersions: which Penstock the Nginx modules are of that have said HELLO, and which version of
// the protocol they want; for penstockctl doctor. It holds kMost kinds, the latest of them.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::queue {

class EdgeVersions {
 public:
  static constexpr size_t kMost = 16;
  static constexpr size_t kMostBytes = 32;  // of a version

  struct Kind {
    std::string version;    // empty: it did not say
    uint64_t protocol = 0;  // the least that has what it needs
    bool refused = false;   // for that
    pid_t pid = 0;          // of the last that said so
    int64_t seen_ns = 0;
  };

  // What a peer says of itself may be anything.
  void note(std::string_view version, uint64_t protocol, bool refused, pid_t pid, int64_t now_ns);
  const std::vector<Kind>& kinds() const { return kinds_; }

 private:
  std::vector<Kind> kinds_;
};

}  // namespace penstock::queue
