// A few threads that share one loop at a time.
//
// run() splits [0, count) into pieces; the caller and whichever helpers wake in time take them one
// by one. Nobody waits for a helper that has not woken: on a busy machine the caller does the work
// itself. Between loops helpers look for work for some tens of microseconds, then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "shared/base/mutex.h"

namespace penstock::llama {

class ThreadPool {
 public:
  // `threads` counts the caller of run(); values below 1 are taken as 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  // Calls body(begin, end) until [0, count) is covered, in pieces of `piece`, from several threads
  // at once. Returns when all calls have returned. REQUIRES: called from one thread; body does not
  // throw or call run().
  template <typename Body>
  void run(int64_t count, int64_t piece, const Body& body) {
    run(Loop{count, piece, &body, [](const void* b, int64_t begin, int64_t end) {
               (*static_cast<const Body*>(b))(begin, end);
             }});
  }

 private:
  struct Loop {
    int64_t count;
    int64_t piece;
    const void* body;
    void (*call)(const void* body, int64_t begin, int64_t end);
  };

  void run(const Loop& loop);
  void take_pieces(const Loop& loop);
  void help();
  bool wait_for_loop(uint64_t seen);

  std::vector<std::thread> helpers_;
  std::atomic<int64_t> next_{0};    // first index nobody has taken
  std::atomic<uint64_t> loops_{0};  // loops begun so far; what idle helpers watch

  Mutex mutex_;
  CondVar begun_;                                  // loops_ grew, or stop_
  CondVar left_;                                   // inside_ reached 0
  const Loop* loop_ GUARDED_BY(mutex_) = nullptr;  // the loop in progress
  int inside_ GUARDED_BY(mutex_) = 0;              // helpers working on it
  bool stop_ GUARDED_BY(mutex_) = false;
};

}  // namespace penstock::llama
