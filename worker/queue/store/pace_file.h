// PaceFile: what was used of the limits of others (bound/pace.h), kept over restarts: STATE/paces.
//
//   file   = magic, 8 | steady time, 8 | time of day, 8 | places, each a record under a name
//
// The file is mapped, so that what was counted is there whenever the process is killed. The kernel
// writes it in its own time: after a power cut the last half minute may be missing. Its times are
// of the steady clock, which begins anew with the machine; the two clocks at its last opening and
// since tell by how much. A file that cannot be used is begun anew: nothing in it is a promise.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "shared/base/result.h"
#include "shared/limit/siphash.h"
#include "worker/queue/bound/pace.h"

namespace penstock::queue {

class PaceFile {
 public:
  static constexpr size_t kPlaces = 64;

  // Without a file: what is counted is forgotten with the process.
  PaceFile();
  ~PaceFile();
  PaceFile(PaceFile&& other) noexcept;
  PaceFile& operator=(PaceFile&& other) noexcept;

  static Result<PaceFile> open(const std::string& path, int64_t steady_ns, int64_t wall_ns);

  // The record of the name. If there is none yet, it takes the place that nobody has used for
  // longest. nullptr: all places are in use.
  PaceRecord* find(const limit::Hash128& name);
  // No place is in use any more, until find() is asked for it again.
  void forget_users();
  // Notes both clocks, so that the next opening can tell how far the steady one has moved.
  void note_time(int64_t steady_ns, int64_t wall_ns);

 private:
  struct Layout;
  Layout* layout_ = nullptr;
  bool used_[kPlaces] = {};
};

}  // namespace penstock::queue
