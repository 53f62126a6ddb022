// Checks: requests that are shown to a worker before anything is promised (PROTOCOL.md, CHECK), so
// that what an engine refuses as it stands is a 400 now, and not a job that has failed later.
//
// Nobody waits for a worker that is late or lost: its silence is taken for consent. How many bytes
// are shown at once is bounded, too.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string_view>

#include "shared/base/shared_bytes.h"
#include "shared/wire/messages.h"
#include "worker/queue/link/connection.h"

namespace penstock::queue {

class WorkerSession;

class Checks {
 public:
  // nullptr: nothing is known against the request. Its views hold during the call.
  using OnChecked = std::function<void(const wire::Checked* refusal)>;

  // What one request counts for at least, in bytes, so that their number is bounded, too.
  static constexpr int64_t kLeastBytes = 4096;

  explicit Checks(ConnectionLoop& connections) : connections_(connections) {}
  Checks(const Checks&) = delete;
  Checks& operator=(const Checks&) = delete;

  // `timeout_ns` 0: nothing is shown to anybody.
  void set_limits(int64_t timeout_ns, int64_t max_bytes) {
    timeout_ns_ = timeout_ns;
    max_bytes_ = max_bytes;
  }
  // Whether one more request of so many bytes may be shown.
  bool have_room(size_t bytes) const;

  // Shows a SUBMIT frame to the worker. `on_checked` is called once, from one of those below.
  // REQUIRES: have_room(frame.size()).
  void ask(WorkerSession& worker, const SharedBytes& frame, OnChecked on_checked);

  // CHECKED came. False: its number was never given.
  bool answered(uint64_t number, const wire::Checked& checked);
  void lost(const WorkerSession& worker);
  // Nobody waits for what was not answered by now.
  void settle();
  // Numbers go on from there: what was shown in an earlier life may still be answered.
  uint64_t last_number() const { return last_number_; }
  void start_after(uint64_t number) { last_number_ = number; }
  void advance_to(int64_t now_ns);
  int64_t next_event() const { return asked_.empty() ? INT64_MAX : asked_.begin()->second.due_ns; }

 private:
  struct Asked {
    const WorkerSession* worker;
    int64_t due_ns;
    int64_t bytes;
    OnChecked on_checked;
  };
  using Place = std::map<uint64_t, Asked>::iterator;
  void tell(Place asked, const wire::Checked* refusal);

  ConnectionLoop& connections_;
  int64_t timeout_ns_ = 0;
  int64_t max_bytes_ = 0;
  int64_t bytes_ = 0;                // of all that are asked about
  std::map<uint64_t, Asked> asked_;  // by number; the first is the next to be late
  uint64_t last_number_ = 0;
};

}  // namespace penstock::queue
