// PromiseReplies: what is told to those who wait for a promise, or for what was promised.
#pragma once

#include <string_view>

#include "worker/queue/jobs/job.h"
#include "worker/queue/jobs/job_view.h"
#include "worker/queue/jobs/subscribers.h"
#include "worker/queue/order/scheduler.h"
#include "worker/queue/store/store.h"

namespace penstock::queue {

class PromiseReplies {
 public:
  // All outlive this.
  PromiseReplies(ConnectionLoop& connections, Subscribers& subscribers)
      : connections_(connections), subscribers_(subscribers) {}

  // The store that has the results. Call it before any result is asked for.
  void use(Store& store) { store_ = &store; }

  // ACCEPTED. `at_leisure`: it may leave together with what follows.
  void accepted(Waiter& waiter, const Job& job, bool at_leisure = false) const;
  // 202, with the job as body; the waiter is done. With `wait=`, that comes once the wait is over.
  void promised(Waiter& waiter, const Job& job);
  void promised(Waiter& waiter, const Job& job, const JobView& view);
  // The job ended before its 202 was said, or within `wait=`: what came of it.
  void ended(Waiter& waiter, Job& job, const JobEnd& end) const;
  // The result of a job that has completed, from where it is kept; the waiter is done then.
  void stored_result(Waiter& waiter, const JobRecord& record, std::string_view headers);
  // The same of one whose answer is at hand.
  void given_result(Waiter& waiter, const JobRecord& record, std::string_view body,
                    std::string_view headers);
  // What an earlier request was answered, whose id is told if it was the same owner's. `now_ms`: of
  // the time of day.
  void earlier(const Waiter& waiter, const KeptAnswer& kept, bool own, int64_t now_ms) const;

 private:
  void result(const Waiter& waiter, const JobRecord& record, std::string_view body,
              std::string_view headers, bool earlier = false) const;

  ConnectionLoop& connections_;
  Subscribers& subscribers_;
  Store* store_ = nullptr;
};

}  // namespace penstock::queue
