// Arrivals: jobs on their way into a shared queue. What Redis does not answer is asked again for
// kPatienceNs; each may be, by its id.
//
// What comes in within a turn goes in one request, and so waits for one flush of Redis's disk. More
// is not waited for: with 16 clients that took a sixth of the rate.
//
// A job that is promised, where replicas are to have it, is noted in the journal as well, side by
// side: nobody is told before both are done.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/shared_jobs/newcomer.h"
#include "worker/queue/shared_jobs/promise_journal.h"
#include "worker/queue/shared_jobs/promise_line.h"

namespace penstock::queue {

// How jobs are promised: by Redis's own disk, or by replicas.
struct Promising {
  redis::Servers* servers = nullptr;  // of the promises' own connections; nullptr: by the disk
  uint32_t replicas = 0;
  Store* store = nullptr;
  int64_t keep_dead_ms = INT64_MAX;  // dead letters are kept so long
};

class Arrivals {
 public:
  static constexpr int64_t kPatienceNs = kNsPerSec;  // of whoever waits for a promise

  // kAway, kFewReplicas: nobody knows whether it is there.
  enum class Outcome : uint8_t {
    kAdded,
    kQueueFull,
    kOwnerFull,
    kKeyUsed,
    kTooFar,
    kAway,
    kFewReplicas
  };
  // `added.job`: of kKeyUsed, the job that has it. kTooFar: it would stand behind last_position.
  using Told = std::function<void(Outcome outcome, const SharedOrder::Added& added)>;
  struct Calls {
    std::function<std::string()> home;
    // One has come in; something is due in so long.
    std::function<void(const std::string& lane, int64_t due_us)> came;
  };

  // What it refers to lives longer.
  Arrivals(SharedOrder& order, const Scheduler::QueueSettings& settings, int64_t keep_ms,
           const Promising& promising, Calls calls);
  ~Arrivals() { *alive_ = false; }
  Arrivals(const Arrivals&) = delete;
  Arrivals& operator=(const Arrivals&) = delete;

  // While one of that id is on its way, what comes of that is told to both.
  void add(Newcomer newcomer, Told told);
  void set(const Scheduler::QueueSettings& settings, int64_t keep_ms, int64_t keep_dead_ms);
  bool ready() const { return line_ == nullptr || line_->ready(); }
  bool empty() const { return arrivals_.empty(); }
  // nullptr: Redis's own disk keeps what is promised.
  const PromiseLine* line() const { return line_.get(); }
  // nullptr: none is kept.
  PromiseJournal* journal() const { return journal_.get(); }

  void advance_to(int64_t now_ns);
  void flush();  // after all add() of a turn

 private:
  struct Arrival {
    Newcomer newcomer;
    Told told;
    int64_t until_ns = 0;
    uint64_t number = 0;   // unlike any other
    bool asking = false;   // Redis
    bool writing = false;  // the journal
    bool written = true;
    std::optional<Outcome> outcome;
    SharedOrder::Added added;
  };

  using Answer = SharedOrder::Answer<SharedOrder::Added>;
  using Sent = std::vector<std::pair<std::string, uint64_t>>;  // ids, and their numbers

  Arrival* find(const std::string& id, uint64_t number);
  void ask(Arrival& arrival);
  bool send(const Sent& some);
  void answered(const Sent& some, SharedOrder::Answer<std::vector<SharedOrder::Added>>& answer);
  void answered(Arrival& arrival, const Answer& answer);
  void settle(Arrival& arrival);

  const std::string queue_;
  SharedOrder& order_;
  const Calls calls_;
  std::unique_ptr<PromiseLine> line_;
  std::unique_ptr<PromiseJournal> journal_;
  std::unordered_map<std::string, Arrival> arrivals_;  // by id
  std::deque<Sent::value_type> gathered_;              // to be sent
  uint64_t numbers_ = 0;
  bool refused_ = false;  // which was told
  bool short_ = false;    // likewise
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace penstock::queue
