#include "worker/queue/results/result_threads.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

namespace penstock::queue {

ResultThreads::ResultThreads(std::vector<std::unique_ptr<ResultStore>> stores)
    : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), stores_(std::move(stores)) {
  for (const auto& store : stores_) {
    threads_.emplace_back([this, &store] { work(*store); });
  }
}

ResultThreads::~ResultThreads() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  asked_.notify_all();
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

bool ResultThreads::ask(Task task) {
  {
    const MutexLock lock(mutex_);
    if (waiting_.size() >= kMostWaiting) {
      return false;
    }
    waiting_.push_back(std::move(task));
  }
  asked_.notify_one();
  return true;
}

void ResultThreads::run_done() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = ::read(event_.get(), &count, sizeof count);
  std::vector<Then> done;
  {
    const MutexLock lock(mutex_);
    done.swap(done_);
  }
  for (const Then& then : done) {
    then();
  }
}

void ResultThreads::work(ResultStore& store) {
  while (true) {
    Task task;
    {
      const MutexLock lock(mutex_);
      while (waiting_.empty() && !stopping_) {
        asked_.wait(mutex_);
      }
      if (stopping_) {
        return;
      }
      task = std::move(waiting_.front());
      waiting_.pop_front();
    }
    Then then = task(store);
    {
      const MutexLock lock(mutex_);
      done_.push_back(std::move(then));
    }
    constexpr uint64_t kOne = 1;
    [[maybe_unused]] const ssize_t n = ::write(event_.get(), &kOne, sizeof kOne);
  }
}

}  // namespace penstock::queue
