// ResultThreads: the stores of results, each used by a thread of its own, so that the loop waits
// for none of them.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/mutex.h"
#include "worker/queue/results/result_store.h"

namespace penstock::queue {

class ResultThreads {
 public:
  // What follows, in the loop's thread.
  using Then = std::function<void()>;
  // What is done with a store, in one of its threads.
  using Task = std::function<Then(ResultStore& store)>;

  static constexpr size_t kMostWaiting = 1024;

  explicit ResultThreads(std::vector<std::unique_ptr<ResultStore>> stores);
  ~ResultThreads();  // what is under way is waited for; what waits is not done
  ResultThreads(const ResultThreads&) = delete;
  ResultThreads& operator=(const ResultThreads&) = delete;

  // False: too many wait already.
  bool ask(Task task);
  int event_fd() const { return event_.get(); }  // readable when tasks have been done
  // What follows from those.
  void run_done();

 private:
  void work(ResultStore& store);

  Fd event_;
  Mutex mutex_;
  CondVar asked_;
  std::deque<Task> waiting_ GUARDED_BY(mutex_);
  std::vector<Then> done_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<ResultStore>> stores_;
  std::vector<std::thread> threads_;
};

}  // namespace penstock::queue
