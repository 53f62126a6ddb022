// Operation: something that the store's thread is to do, and who is told of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>

#include "shared/base/job_id.h"

namespace penstock::queue {

struct Operation {
  enum Kind : uint8_t {
    kRead,     // fails alone
    kWrite,    // is tried until it succeeds, or fails by itself too often
    kPromise,  // is tried once
    kApart,    // likewise, by itself: no transaction is open
  } kind = kRead;
  std::optional<JobId> job;   // kWrite: whose result it has to do with; they keep their order
  bool part = false;          // of a result, which is not wanted without the others
  size_t bytes = 0;           // that it holds in memory
  std::function<bool()> run;  // false: it failed. May be called again after a roll-back
  // On the owner's thread, once it is on disk; or, of a promise, refused.
  std::function<void()> on_done;
  std::function<void(bool full)> on_refused;  // kPromise
  std::function<bool()> undo;                 // kPromise
  std::function<void()> lose_result{};        // an end: from now on, that of a job without a result
  bool asked = true;                          // else it is the store's own
};

}  // namespace penstock::queue
