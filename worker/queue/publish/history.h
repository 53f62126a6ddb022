// History: how each queue fared in the last hour, two rows a minute, so that a console which was
// just opened has a past.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/queue/jobs/dispatcher.h"

namespace penstock::queue {

// A queue at a moment. What is counted is counted since penstockd began.
struct QueueLook {
  std::string name;
  int64_t waiting = 0;
  int64_t running = 0;
  std::optional<int64_t> promised_ms;  // what a job that came now is told it waits; none: unknown
  uint64_t arrived = 0;                // jobs let in
  uint64_t ended = 0;                  // jobs that left, however
  uint64_t completed = 0;
  uint64_t failed = 0;
  uint64_t started = 0;
  double waited_s = 0;  // by those that started, in all
};
std::vector<QueueLook> look_at(Dispatcher& dispatcher);

class History {
 public:
  static constexpr size_t kRows = 120;
  static constexpr int64_t kStepNs = 30 * kNsPerSec;

  // Call it once more at next_event().
  void advance(Dispatcher& dispatcher, int64_t now_ns) {
    if (now_ns >= due_ns_) {
      advance_to(now_ns, dispatcher.wall_ms(), look_at(dispatcher));
    }
  }
  // `wall_ms` is the time of day.
  void advance_to(int64_t now_ns, int64_t wall_ms, const std::vector<QueueLook>& looks);
  int64_t next_event() const { return due_ns_; }

  // {"step_seconds":30,"rows":[{"at":1795960980,"seconds":30,"queues":[{"name":"default",
  // "waiting":3,"running":1,"in":22,"out":20,"completed":19,"failed":1,"promised_ms":1200,
  // "waited_ms":900}]}]}, the oldest first; the last one has only begun. What is not known is null.
  std::string json(Dispatcher& dispatcher, int64_t now_ns) const {
    return json(now_ns, dispatcher.wall_ms(), look_at(dispatcher));
  }
  std::string json(int64_t now_ns, int64_t wall_ms, const std::vector<QueueLook>& looks) const;

 private:
  std::string row(int64_t seconds, int64_t wall_ms, const std::vector<QueueLook>& looks) const;

  int64_t due_ns_ = 0;
  int64_t since_ns_ = 0;                   // when the row that is not whole began
  std::map<std::string, QueueLook> then_;  // as it was
  std::deque<std::string> rows_;
};

}  // namespace penstock::queue
