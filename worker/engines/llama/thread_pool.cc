#include "worker/engines/llama/thread_pool.h"

#include <algorithm>

namespace penstock::llama {
namespace {

constexpr int kSpins =
    2000;  // some tens of microseconds: longer than the gap between two operations of a step

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) {
    helpers_.emplace_back([this] { help(); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    loops_.fetch_add(1);  // wakes those that watch
  }
  begun_.notify_all();
  for (std::thread& helper : helpers_) {
    helper.join();
  }
}

void ThreadPool::run(const Loop& loop) {
  if (helpers_.empty() || loop.count <= loop.piece) {
    loop.call(loop.body, 0, loop.count);
    return;
  }
  {
    const MutexLock lock(mutex_);
    loop_ = &loop;
    next_.store(0, std::memory_order_relaxed);
    loops_.fetch_add(1, std::memory_order_release);
  }
  begun_.notify_all();
  take_pieces(loop);
  const MutexLock lock(mutex_);
  loop_ = nullptr;  // who wakes from here on finds nothing to do
  while (inside_ > 0) {
    left_.wait(mutex_);
  }
}

void ThreadPool::take_pieces(const Loop& loop) {
  for (;;) {
    const int64_t begin = next_.fetch_add(loop.piece, std::memory_order_relaxed);
    if (begin >= loop.count) {
      return;
    }
    loop.call(loop.body, begin, std::min(begin + loop.piece, loop.count));
  }
}

void ThreadPool::help() {
  uint64_t seen = 0;
  while (wait_for_loop(seen)) {
    const Loop* loop = nullptr;
    {
      const MutexLock lock(mutex_);
      seen = loops_.load(std::memory_order_relaxed);
      loop = loop_;
      inside_ += loop != nullptr ? 1 : 0;
    }
    if (loop == nullptr) {
      continue;
    }
    take_pieces(*loop);
    const MutexLock lock(mutex_);
    if (--inside_ == 0) {
      left_.notify_one();
    }
  }
}

// Until a loop after number `seen` begins. False: the pool is being destroyed.
bool ThreadPool::wait_for_loop(uint64_t seen) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (loops_.load(std::memory_order_acquire) != seen) {
      break;
    }
    pause_briefly();
  }
  const MutexLock lock(mutex_);
  while (!stop_ && loops_.load(std::memory_order_relaxed) == seen) {
    begun_.wait(mutex_);
  }
  return !stop_;
}

}  // namespace penstock::llama
