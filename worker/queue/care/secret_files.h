// Files with secrets and certificates that a configuration names. Most are read once and kept, so
// what becomes of one while penstockd runs would be noticed at the next reload or start only, which
// it keeps from coming up: therefore they are looked at, and each that cannot be read is told of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/config/config.h"

namespace penstock::queue {

struct NamedFile {
  std::string about;      // the key that names it: "webhooks.secret_file"
  std::string path;       // never empty
  bool is_secret = true;  // else a certificate, which others may read
};

// All of them; those of workers as well, which read them by themselves, but not of external ones:
// these are another user's.
std::vector<NamedFile> secret_files(const Config& config);

// Empty: it can be read.
std::string why_unreadable(const std::string& path);

// A thread of its own looks, as a network mount may hang: nothing waits for that.
class SecretWatch {
 public:
  static constexpr int64_t kEveryNs = 5 * kNsPerSec;
  static constexpr int64_t kAnswerNs = 10 * kNsPerMs;  // by then it has looked, mostly
  static constexpr int64_t kHangsNs = 10 * kNsPerSec;  // a file that has not answered by then

  // Why a file cannot be read; empty: it can.
  using Look = std::function<std::string(const std::string& path)>;
  explicit SecretWatch(Look look = why_unreadable) : look_(std::move(look)) {}

  // Looks if it is time. In the log: each that cannot be read, once, and each that can again.
  void advance_to(const Config& config, int64_t now_ns);
  // Looks at the next turn: other files may be named.
  void look_soon() noexcept {
    due_ns_ = 0;
    again_ = true;
  }
  int64_t next_event() const noexcept { return due_ns_; }
  size_t unreadable() const noexcept { return unreadable_.size(); }

 private:
  struct Looking;  // with the thread, which may be the last to hold it

  void begin(const Config& config, int64_t now_ns);
  void tell(const NamedFile& file, const std::string& why);

  const Look look_;
  std::set<std::string> unreadable_;  // paths
  std::shared_ptr<Looking> looking_;
  int64_t begun_ns_ = 0;  // looking_
  int64_t due_ns_ = 0;
  bool again_ = false;  // at once, when it has looked
};

}  // namespace penstock::queue
