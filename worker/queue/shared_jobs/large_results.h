// LargeResults: the results of shared jobs that are too large for Redis, in a store that all hosts
// have (results/).
//
//     noted (when it is to be removed) ──▶ put, as ID.RANDOM ──▶ named in the job's record
//
// A result is noted in Redis before it is put. So each that is there is removed some time after its
// job is forgotten, by any host; one whose host died before it told of it, too. No two have one
// name: what one host removes is not what another tells of. What is served is first brought to this
// host's disk, where Nginx reads it, unless callers are sent to the store.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "shared/base/clock.h"
#include "shared/base/event_loop.h"
#include "worker/queue/config/results_config.h"
#include "worker/queue/results/result_threads.h"
#include "worker/queue/shared_order/shared_order.h"
#include "worker/queue/store/job_record.h"

namespace penstock::queue {

class S3Store;

class LargeResults final : EventLoop::Handler {
 public:
  static constexpr size_t kThreads = 2;
  static constexpr int64_t kEveryNs = 10 * kNsPerSec;     // what is to be removed is looked for
  static constexpr int64_t kSpareMs = 60'000;             // it outlives its job's record by that
  static constexpr int64_t kFetchedNs = 600 * kNsPerSec;  // so long it stays on this host's disk
  static constexpr size_t kMostRemoved = 50;              // at once
  static constexpr int kRedirectSeconds = 300;

  // `state`: what is fetched lies in a folder there, which `group` may read. The loop lives longer.
  // `on_event` is called before anybody is told of anything.
  static Result<std::unique_ptr<LargeResults>> open(const ResultsConfig& config,
                                                    const std::string& state,
                                                    const std::string& group, EventLoop& events,
                                                    std::function<void()> on_event);
  ~LargeResults() override;
  LargeResults(const LargeResults&) = delete;
  LargeResults& operator=(const LargeResults&) = delete;

  bool wants(uint64_t bytes) const { return bytes >= static_cast<uint64_t>(config_.from_bytes); }

  // Told once the store has it, and Redis knows when it is to be removed.
  using Stored = std::function<void(Result<StoredResult>)>;
  void put(SharedOrder& order, const std::string& id, std::string bytes, int64_t keep_ms,
           Stored stored);
  // It is to be removed some time after its job is forgotten, which is in `keep_ms`.
  static bool note(SharedOrder& order, const std::string& name, int64_t keep_ms,
                   SharedOrder::Then<bool> then);
  // It was put, and is not wanted, here or where it was put.
  void remove(SharedOrder& order, const std::string& name);

  // The record of a job with its result where Nginx reads it; as it is, if Redis has that.
  void bring(JobRecord record, const std::function<void(Result<JobRecord>)>& brought);
  // Its bytes from one on.
  void read(const JobRecord& record, uint64_t first,
            const std::function<void(Result<std::string>)>& done);
  // Where callers are sent for it; empty: nowhere, it is served from here.
  std::string address_of(const JobRecord& record) const;

  // What is to be removed is, of that queue.
  void clean(SharedOrder& order);
  void advance_to(int64_t now_ns, const std::function<void()>& clean_all);

 private:
  LargeResults(ResultsConfig config, std::string folder, std::string group, EventLoop& events,
               std::function<void()> on_event, std::vector<std::unique_ptr<ResultStore>> stores,
               std::unique_ptr<S3Store> addresses);
  void on_events(uint32_t) override;
  void remove(SharedOrder& order, const std::vector<std::string>& names);

  const ResultsConfig config_;
  const std::string folder_;  // of what was fetched
  const std::string group_;
  EventLoop& events_;
  const std::function<void()> on_event_;
  std::unique_ptr<S3Store> addresses_;  // nullptr: callers are not sent there
  int64_t next_ns_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  ResultThreads threads_;
};

}  // namespace penstock::queue
