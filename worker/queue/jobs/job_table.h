// JobTable: owns every job that penstockd has in memory, and finds it by its id.
//
// Chains in an array that doubles. A job costs it one pointer and its share of the array: hundreds
// of thousands may be queued, and nothing else of most of them is in memory.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "shared/base/bytes.h"
#include "worker/queue/jobs/job.h"

namespace penstock::queue {

class JobTable {
 public:
  size_t size() const noexcept { return size_; }

  // REQUIRES: no job of that id is in.
  Job& add(std::unique_ptr<Job> job) {
    if (size_ == chains_.size()) {
      grow();
    }
    ++size_;
    std::unique_ptr<Job>& chain = chains_[place(job->id.view())];
    job->next_in_table = std::move(chain);
    chain = std::move(job);
    return *chain;
  }

  Job* find(std::string_view id) const noexcept {
    if (id.size() != JobId::kBytes) {
      return nullptr;
    }
    for (Job* job = chains_[place(id)].get(); job != nullptr; job = job->next_in_table.get()) {
      if (job->id.view() == id) {
        return job;
      }
    }
    return nullptr;
  }

  // Destroys the job. REQUIRES: it is in.
  void erase(Job& job) noexcept {
    std::unique_ptr<Job>* link = &chains_[place(job.id.view())];
    while (link->get() != &job) {
      link = &(*link)->next_in_table;
    }
    const std::unique_ptr<Job> gone = std::move(*link);
    *link = std::move(gone->next_in_table);
    --size_;
  }

  // Visits every job; `visit` may erase the one it is at, and no other.
  template <typename Visit>
  void each(Visit&& visit) {
    for (const std::unique_ptr<Job>& chain : chains_) {
      for (Job* job = chain.get(); job != nullptr;) {
        Job* const next = job->next_in_table.get();
        visit(*job);
        job = next;
      }
    }
  }

 private:
  static constexpr size_t kFewest = 64;

  // An id ends in random characters, which nobody but us has chosen.
  size_t place(std::string_view id) const noexcept {
    const uint64_t random = load_le<uint64_t>(id.data() + JobId::kBytes - sizeof(uint64_t));
    return (random * 0x9E3779B97F4A7C15 >> 32) & (chains_.size() - 1);
  }

  void grow() {
    std::vector<std::unique_ptr<Job>> old(chains_.size() * 2);
    old.swap(chains_);
    for (std::unique_ptr<Job>& chain : old) {
      while (chain != nullptr) {
        std::unique_ptr<Job> job = std::move(chain);
        chain = std::move(job->next_in_table);
        std::unique_ptr<Job>& into = chains_[place(job->id.view())];
        job->next_in_table = std::move(into);
        into = std::move(job);
      }
    }
  }

  std::vector<std::unique_ptr<Job>> chains_ = std::vector<std::unique_ptr<Job>>(kFewest);
  size_t size_ = 0;
};

}  // namespace penstock::queue
