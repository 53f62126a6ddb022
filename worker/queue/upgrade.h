// Upgrade: how far penstockd is in giving its place to the program that it was started as, which
// may be another by now.
//
//     kNone ──order──▶ kAsking ──it can take over──▶ kSettling ──▶ exec(2)
//       ▲                 │ it cannot                    │ not in time, or exec failed
//       └─────────────────┴──────────────────────────────┘ as if nothing had been
//
// The process stays the same one: its children stay its own, and its locks are never free. While
// kSettling, nothing is read of any connection, so that all that was asked of the disk is answered.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/config/config.h"
#include "worker/queue/process/successor.h"

namespace penstock::queue {

struct Waiter;

// How this penstockd was started.
struct Invocation {
  std::string program;             // from the root on: its file may be another by now
  std::vector<std::string> words;  // argv
};

// What the program that reads this configuration says of itself.
SuccessorSays says_of(const Config& config);

struct Upgrade {
  static constexpr int64_t kSettleNs = 3 * kNsPerSec;

  enum class Phase : uint8_t { kNone, kAsking, kSettling } phase = Phase::kNone;
  bool dry = false;          // it is only asked
  Waiter* waiter = nullptr;  // who ordered it; nullptr: a signal did, or they have left
  std::unique_ptr<Successor> successor;
  SuccessorSays says;
  int64_t ends_ns = INT64_MAX;  // kSettling: given up then
  uint64_t count = 0;           // of this process, until now
};

}  // namespace penstock::queue
