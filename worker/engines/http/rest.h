// Rest: whether the url takes jobs now, and how many, by what its server does.
//
//              back-pressure, or not there             its time has come
//     open ───────────────────────────────▶ resting ─────────────────────▶ trying
//      ▲                                       ▲                             │ │
//      │                                       └──── back-pressure again ────┘ │
//      └───────────── a job was answered, or a second passed well ─────────────┘
//
// While it rests, no slot is open. While it tries, one more is open than run. The server may say
// how long (Retry-After), up to a bound; else the rest doubles each time, from `first` to `most`.
// Fewer slots are open while the server queues jobs by itself (crowd).
//
// Pure: time is pushed in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "shared/base/clock.h"

namespace penstock::http_engine {

class Rest {
 public:
  static constexpr int64_t kTryNs = kNsPerSec;
  static constexpr int64_t kQuotaNs = 60 * kNsPerSec;  // at least; money does not come by itself

  struct Settings {
    uint32_t slots = 1;
    int64_t first_ns = kNsPerSec;
    int64_t most_ns = 30 * kNsPerSec;
    int64_t max_hold_ns = 600 * kNsPerSec;
  };
  struct State {
    uint32_t slots = 0;
    bool out = false;
    int64_t until_ns = 0;  // so long it is so, at least; 0: not known
    std::string why;
    bool operator==(const State&) const = default;
  };

  explicit Rest(const Settings& settings) : settings_(settings), crowded_(settings.slots) {}

  struct Cause {
    std::string why;  // for the operator
    bool out = false;
    bool quota = false;
    std::optional<int64_t> asked_ns;  // by the server
  };
  // The server has no room for a job that was started at `started_ns`. A job that was under way
  // when the rest began does not make it longer. Returns how long the url rests now.
  int64_t rest(Cause cause, int64_t started_ns, int64_t now_ns);
  // A job that was started at that time was answered.
  void answered(int64_t started_ns);
  // hold(): the server says that it is not well. The url takes no jobs until release(): the server
  // is well again. release() also ends a rest that began because the server was not there.
  void hold(const std::string& why);
  void release();

  // `waiting` of our `running` jobs wait in the server's own queue. 0 opens slot by slot again.
  void crowd(uint64_t waiting, uint32_t running);

  // The state now, with `running` jobs under way.
  State state(uint32_t running, int64_t now_ns);
  // When state() changes by itself; INT64_MAX: it does not.
  int64_t next_event(int64_t now_ns) const;

 private:
  const Settings settings_;
  uint32_t crowded_;        // slots that the server has room for
  int64_t until_ns_ = 0;    // it rests until then
  int64_t backoff_ns_ = 0;  // the last of our own
  uint32_t try_slots_ = 0;  // that are open while it tries; 0: nobody asked yet
  bool tries_ = false;      // it has rested, and nobody was answered since
  bool held_ = false;
  Cause cause_;
  std::string held_why_;
};

}  // namespace penstock::http_engine
