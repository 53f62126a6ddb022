// SharedCharges: what edges have charged for promised jobs, on its way to be settled: by the edge
// that charged it, or, under limits that are in Redis, by any that shares them. Before the first is
// told of such a one, Redis is asked whether another host has settled it; and what others' edges
// charged whose host is gone is told to this one's (shared_jobs/shared_receipts.h).
//
// Of jobs of queues that hosts do not share, and of receipts without a seal, nobody is asked.
#pragma once

#include <cstdint>
#include <string_view>

#include "worker/queue/link/edge_lines.h"
#include "worker/queue/shared_jobs/shared_jobs.h"

namespace penstock::queue {

class SharedCharges final : SharedReceipts::User {
 public:
  explicit SharedCharges(EdgeLines& edges) : edges_(edges) {}
  SharedCharges(const SharedCharges&) = delete;
  SharedCharges& operator=(const SharedCharges&) = delete;

  // It lives longer.
  void use(SharedJobs& shared);

  // A job was promised here.
  static void promised(SharedQueue& queue, const JobId& id, std::string_view receipt);
  // It is over. `queue`: that hosts share; nullptr: they do not.
  void over(SharedQueue* queue, const JobId& id, const wire::Over& over);

 private:
  bool settles() const override { return edges_.size() > 0; }
  bool settles_others() const override { return edges_.settles_others(); }
  void on_inherited(const Receipts::Inherited& inherited) override;

  EdgeLines& edges_;
  uint64_t inherited_ = 0;  // so far
};

// What the edge is told of a job's end.
wire::Over over_of(std::string_view receipt, std::string_view model, const JobEnd& end,
                   JobStatus status);

}  // namespace penstock::queue
