// JobsHandOver: the jobs of a Dispatcher, and who waits for them, as one penstockd hands them to
// the next (handover/entries.h).
//
// What runs goes on, as the same attempt; what waits keeps its place; who waits for an answer gets
// the rest of it. REQUIRES, on both sides: nothing is on its way to the store, or from it.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "worker/queue/handover/record.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/order/carried_order.h"

namespace penstock::queue {

class JobsHandOver {
 public:
  // The place of a caller among those that are handed over.
  using PlaceOf = std::function<uint64_t(const Caller&)>;
  using CallerAt = std::function<Caller*(uint64_t)>;

  explicit JobsHandOver(Dispatcher& dispatcher)
      : jobs_(dispatcher), order_(dispatcher.scheduler_) {}

  // Whether all jobs are in a state that can be handed over. What is asked of workers is answered
  // here: their silence would be taken for consent.
  bool settle();
  // What nobody can go on with ends with a word to who waits for it: streams of all of an owner's
  // jobs, and questions (`but` that one) that the store or Redis has not answered.
  void end_the_rest(const Waiter* but);
  void note_numbers(CarriedBegin& begin) const;
  void write(RecordWriter& record, const PlaceOf& place_of) const;

  // The next penstockd's. First every job of the record, then what the store has:
  void take_numbers(const CarriedBegin& begin);
  void read(const CarriedJob& job);
  // What is in the store's files of answers under way stays there. Before Store::recover().
  void keep_files(Store& store) const;
  // True: the record is of a job that was handed over, and is kept for it.
  bool takes(JobRecord& record);
  // Then all stand in their queues. Said in the log: what was promised and is not on disk any more.
  void restore();
  bool read_order(RecordReader& record) { return order_.read(record); }
  void read(const CarriedWaiter& waiter, const JobId& job, Caller* caller);
  // After all else: what runs on no worker after all waits again.
  void finish();
  // A queue of no configuration any more: it stands for as long as what is in it needs to end.
  Scheduler::Queue& stand_in(std::string_view queue);
  // A worker's process goes on.
  void adopt(WorkerSession& worker) { jobs_.workers_.add(worker); }
  Job* find(uint64_t high, uint64_t low) const { return jobs_.jobs_.find({high, low}); }

 private:
  struct Suspect {
    uint64_t place = 0;
    const Scheduler::Lane* lane = nullptr;
  };
  using SuspectsWaiting = std::unordered_map<const Job*, Suspect>;
  void write(RecordWriter& record, const Job& job, const PlaceOf& place_of,
             const SuspectsWaiting& suspects) const;
  void restore_suspects();
  void restore(const CarriedJob& carried);
  static void restore_answer(Job& job, const CarriedJob& carried);

  Dispatcher& jobs_;
  CarriedOrder order_;
  std::vector<CarriedJob> carried_;
  std::unordered_map<uint64_t, JobRecord> records_;  // of those that were promised, by Ulid::low
  std::map<uint64_t, std::pair<Job*, const Scheduler::Lane*>> suspects_;  // that wait, by place
};

}  // namespace penstock::queue
