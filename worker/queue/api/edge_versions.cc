#include "worker/queue/api/edge_versions.h"

#include <algorithm>

namespace penstock::queue {
namespace {

bool is_version(std::string_view text) {
  return text.size() <= EdgeVersions::kMostBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

}  // namespace

void EdgeVersions::note(std::string_view version, uint64_t protocol, bool refused, pid_t pid,
                        int64_t now_ns) {
  version = is_version(version) ? version : "?";
  auto found = std::find_if(kinds_.begin(), kinds_.end(), [&](const Kind& each) {
    return each.version == version && each.protocol == protocol && each.refused == refused;
  });
  if (found == kinds_.end()) {
    if (kinds_.size() == kMost) {
      kinds_.erase(std::min_element(kinds_.begin(), kinds_.end(), [](const Kind& a, const Kind& b) {
        return a.seen_ns < b.seen_ns;
      }));
    }
    kinds_.push_back({std::string(version), protocol, refused, 0, 0});
    found = kinds_.end() - 1;
  }
  found->pid = pid;
  found->seen_ns = now_ns;
}

}  // namespace penstock::queue
