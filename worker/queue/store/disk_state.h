// DiskState: how the store stands with the disk, and what the last write ran into. Any thread may
// ask; how the store goes from one state to the next:
//
//              a transaction fails             another succeeds
//     kWell ───────────────────────▶ kBroken ───────────────────▶ kWell (kSpare, if it was full)
//       ├── the disk is full: its reserve is given up ──▶ kSpare ── there is room ──▶ kWell
//       ├── the log cannot be moved into the database ──▶ kStuck ── it can be ──▶ kWell
//       └── a flush fails (in any state) ──▶ kLost ── the log is written once more ──▶ kWell
//
// The state is the worst of those that apply. Promises are made in kWell alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "shared/base/mutex.h"
#include "worker/queue/store/reserve.h"

namespace penstock::queue {

enum class Disk : uint8_t { kWell, kSpare, kStuck, kBroken, kLost };

class DiskState {
 public:
  explicit DiskState(Reserve reserve) : reserve_(std::move(reserve)) {}

  Disk now() const { return now_.load(std::memory_order_acquire); }
  std::string last_fault() const {
    const MutexLock lock(mutex_);
    return fault_;
  }
  uint64_t faults() const { return faults_; }
  // A write has failed. That alone does not change the state.
  void note_fault(std::string what) {
    const MutexLock lock(mutex_);
    fault_ = std::move(what);
    ++faults_;
  }
  // Something is missing, but nothing has failed: it is not counted.
  void note_want(std::string what) {
    const MutexLock lock(mutex_);
    fault_ = std::move(what);
  }

  // Does not change kLost: a flush that failed is not forgotten before recover().
  void become(Disk next) {
    Disk now = now_;
    while (now != Disk::kLost && !now_.compare_exchange_weak(now, next)) {
    }
  }
  void lose() { now_ = Disk::kLost; }

  // The store's thread's, as is the reserve:
  // The fault has passed.
  void become_well() { become(best()); }
  // What a flush may have lost is written again.
  void recover() { now_ = best(); }
  Reserve& reserve() { return reserve_; }

 private:
  Disk best() const { return reserve_.whole() ? Disk::kWell : Disk::kSpare; }

  Reserve reserve_;
  std::atomic<Disk> now_{Disk::kWell};
  std::atomic<uint64_t> faults_{0};
  mutable Mutex mutex_;
  std::string fault_ GUARDED_BY(mutex_);
};

}  // namespace penstock::queue
