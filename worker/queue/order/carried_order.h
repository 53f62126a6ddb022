// CarriedOrder: a Scheduler's order as one penstockd hands it to the next (handover/entries.h).
// Each job stands where it stood, at the tags it had; what is owed and what was learned goes along.
// What runs goes on as running.
#pragma once

#include "worker/queue/handover/record.h"
#include "worker/queue/order/scheduler.h"

namespace penstock::queue {

class CarriedOrder {
 public:
  explicit CarriedOrder(Scheduler& scheduler) : scheduler_(scheduler) {}

  // The job's place. The texts hold while its queue does. REQUIRES: it is known.
  void note(const Scheduler::Ticket& ticket, CarriedJob& job) const;
  // All queues, their lanes and their classes.
  void write(RecordWriter& record) const;

  // The same, in the next: each job first, all else then. `served_by`: of one that runs, the lane
  // of its worker. REQUIRES: the ticket is unknown.
  void restore(Scheduler::Ticket& ticket, Scheduler::Lane& lane, Scheduler::Lane* served_by,
               const CarriedJob& job, int64_t now_ns);
  // A suspect, which stands in no line (jobs/suspects.h).
  static bool is_set_apart(const CarriedJob& job);
  // Reads the entry if it is of the order; those of a queue in their order. False: it is not.
  bool read(RecordReader& record);

 private:
  void write(RecordWriter& record, const Scheduler::Queue& queue,
             const Scheduler::Lane& lane) const;
  void read_queue(const CarriedQueue& queue);
  void read_lane(const CarriedLane& lane);
  void read_class(const CarriedClass& its);
  void read_flow(const CarriedFlow& flow);

  Scheduler& scheduler_;
  // The entries that were read last are of:
  Scheduler::Queue* queue_ = nullptr;
  Scheduler::Lane* lane_ = nullptr;
  Scheduler::Class* class_ = nullptr;
};

}  // namespace penstock::queue
