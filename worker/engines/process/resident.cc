#include "worker/engines/process/resident.h"

#include <charconv>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace penstock::process {
namespace {

namespace fs = std::filesystem;

int64_t own_bytes(const std::string& folder) {
  std::ifstream status(folder + "/status");
  int64_t kib = 0;
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:") || line.starts_with("RssShmem:")) {
      const char* const digits = line.data() + line.find_first_of("0123456789");
      int64_t one = 0;
      std::from_chars(digits, line.data() + line.size(), one);
      kib += one;
    }
  }
  return kib << 10;
}

void add_children(const std::string& folder, std::vector<pid_t>& pids) {
  std::error_code gone;
  for (const auto& task : fs::directory_iterator(folder + "/task", gone)) {
    std::ifstream children(task.path() / "children");
    for (pid_t pid; children >> pid;) {
      pids.push_back(pid);
    }
  }
}

}  // namespace

int64_t resident_bytes_below(pid_t root) {
  const auto folder_of = [](pid_t pid) { return "/proc/" + std::to_string(pid); };
  int64_t bytes = 0;
  std::vector<pid_t> pids;
  add_children(folder_of(root), pids);
  while (!pids.empty()) {
    const std::string folder = folder_of(pids.back());
    pids.pop_back();
    bytes += own_bytes(folder);
    add_children(folder, pids);
  }
  return bytes;
}

}  // namespace penstock::process
