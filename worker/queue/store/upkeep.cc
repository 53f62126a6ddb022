#include "worker/queue/store/upkeep.h"

#include <utility>

namespace penstock::queue {
namespace {

constexpr int kMostWipes = 100'000;  // of 1 MiB each: others may free as fast

}  // namespace

void Upkeep::look_at_all() {
  count_on();
  look_at_files(std::make_shared<ResultFiles::Round>(jobs_.files().round()));
  if (wipe_due_) {
    wipe();
  }
}

void Upkeep::count_on() {
  const auto more = std::make_shared<bool>(false);
  queue_.ask({.kind = Operation::kRead,
              .run = [this, more] { return jobs_.count_some(*more); },
              .on_done =
                  [this, more] {
                    if (*more) {
                      count_on();
                    }
                  }});
}

void Upkeep::look_at_files(const std::shared_ptr<ResultFiles::Round>& round) {
  const auto more = std::make_shared<bool>(false);
  queue_.ask({.kind = Operation::kRead,
              .run =
                  [this, round, more] {
                    *more = jobs_.remove_stray_files(*round);
                    return true;
                  },
              .on_done =
                  [this, round, more] {
                    if (*more) {
                      look_at_files(round);
                    }
                  }});
}

// A transaction removes no more than some, so that promises need not wait for all of them.
void Upkeep::sweep(int64_t now_ms, const UsageBounds& ledger) {
  if (std::exchange(sweeping_, true)) {
    return;
  }
  const auto swept = std::make_shared<StoredJobs::Swept>();
  queue_.ask({.kind = Operation::kWrite,
              .run = [=, this] { return jobs_.sweep(now_ms, ledger, *swept); },
              .on_done =
                  [=, this] {
                    sweeping_ = false;
                    shrank_ = shrank_ || swept->shrank;
                    if (swept->more || swept->shrank) {
                      sweep(now_ms, ledger);
                    } else if (std::exchange(shrank_, false)) {
                      empty_log();
                    }
                    if (wipe_due_ && !wiping_) {
                      wipe();
                    }
                  }});
}

// The database's file gets shorter by it.
void Upkeep::empty_log() {
  queue_.ask({.kind = Operation::kApart, .run = [this] {
                queue_.empty_log();
                return true;
              }});
}

void Upkeep::note_purge() {
  if (!std::exchange(noted_, true)) {
    folder_.note_purge();
  }
}

void Upkeep::wipe() {
  wipe_again_ = wiping_;
  if (!std::exchange(wiping_, true)) {
    wipe_on(kMostWipes);
  }
}

void Upkeep::wipe_on(int most) {
  using Wiped = WriteQueue::Wiped;
  const auto wiped = std::make_shared<Wiped>(Wiped::kNotNow);
  queue_.ask({.kind = Operation::kApart,
              .run =
                  [this, wiped] {
                    *wiped = queue_.wipe_some();
                    if (*wiped == Wiped::kAll && std::exchange(noted_, false)) {
                      folder_.note_wiped();
                    }
                    return true;
                  },
              .on_done =
                  [this, wiped, most] {
                    if (*wiped == Wiped::kSome && most > 0) {
                      return wipe_on(most - 1);
                    }
                    wiping_ = false;
                    wipe_due_ = *wiped != Wiped::kAll;
                    if (std::exchange(wipe_again_, false)) {
                      wipe();
                    }
                  }});
}

void Upkeep::back_up(std::function<void(Status)> on_done) {
  copy_on(std::make_shared<Copying>(Copying{nullptr, true, std::move(on_done)}));
}

void Upkeep::forget_backup() {
  queue_.ask({.kind = Operation::kApart, .run = [this] {
                StateCopy::remove(folder_.path);
                return true;
              }});
}

void Upkeep::copy_some(Copying& copying) {
  if (copying.copy == nullptr) {
    jobs_.keep_files(true);
    auto begun = StateCopy::begin(jobs_.tables().database(), folder_.path, disk_.reserve().bytes());
    if (!begun) {
      copying.more = begun.error();
      return;
    }
    copying.copy = *std::move(begun);
  }
  copying.more = copying.copy->step();
}

void Upkeep::copy_on(const std::shared_ptr<Copying>& copying) {
  queue_.ask({.kind = Operation::kApart,
              .run =
                  [this, copying] {
                    copy_some(*copying);
                    if (!copying->more || !*copying->more) {
                      copying->copy.reset();
                      jobs_.keep_files(false);
                    }
                    if (!copying->more) {
                      StateCopy::remove(folder_.path);
                    }
                    return true;
                  },
              .on_done =
                  [this, copying] {
                    if (copying->more && *copying->more) {
                      return copy_on(copying);
                    }
                    copying->on_done(copying->more ? Status(Ok{}) : copying->more.error());
                  }});
}

}  // namespace penstock::queue
