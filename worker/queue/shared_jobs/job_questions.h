// JobQuestions: what a host asks another that runs a job, and is told from its memory.
//
//   "ask NUMBER HOST …"   on the channel of the host that runs it: who asks, and what
//   "told NUMBER …"       on the channel of the host that has asked
//
// Both are hints: who hears nothing for kPatienceNs is answered with nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "shared/base/clock.h"
#include "shared/redis/servers.h"

namespace penstock::queue {

class JobQuestions {
 public:
  static constexpr int64_t kPatienceNs = 250 * kNsPerMs;
  static constexpr size_t kMost = 1000;  // without an answer; others get none

  // Empty: there is none. Good until it returns.
  using Told = std::function<void(std::string_view answer)>;
  // What this host answers.
  using Answers = std::function<std::string(std::string_view asked)>;

  // `key`: SharedOrder::key(). `servers` lives longer; its scripts are order_script's.
  JobQuestions(redis::Servers& servers, std::string key, Answers answers)
      : servers_(servers), key_(std::move(key)), answers_(std::move(answers)) {}
  JobQuestions(const JobQuestions&) = delete;
  JobQuestions& operator=(const JobQuestions&) = delete;

  // `from`: this host, `to`: who runs the job. It is told later, but before this is destroyed.
  void ask(std::string_view from, std::string_view to, std::string_view what, Told told);
  // What this host's channel says. False: it is none of this.
  bool on_message(std::string_view text);

  // Elapsed time is pushed in.
  void advance_to(int64_t now_ns);
  int64_t next_event() const noexcept {
    return asked_.empty() ? INT64_MAX : asked_.begin()->second.until_ns;
  }

 private:
  struct Asked {
    int64_t until_ns;
    Told told;
  };
  void say(std::string_view host, std::string_view text);

  redis::Servers& servers_;
  const std::string key_;
  const Answers answers_;
  std::map<uint64_t, Asked> asked_;  // by number: by time as well
  uint64_t last_number_ = 0;
};

}  // namespace penstock::queue
