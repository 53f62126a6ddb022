// SharedOrder: a queue's order, kept in Redis for all hosts that serve it. Each request is one
// script (scripts/), atomic and O(log n).
//
//                add              serve                   serve (finished)
//    (unknown) ───────▶ waiting ───────▶ running ────────────────────────▶ over, and kept for a
//    while
//        │ not before    ▲  ▲               │ back, reap
//        ▼               │  └───────────────┤ at once
//    scheduled ─────────▶├──── delayed ◀────┘ after a back-off; at the last attempt: over
//
//    from any state: cancel, or the deadline ──▶ over
//
// The order is the Scheduler's (order/scheduler.h): the same jobs are taken in the same order, at
// the same positions. What cannot be the same:
//   - of things that are due in the same microsecond, Redis takes jobs by id and lanes by name; the
//     Scheduler in no certain order;
//   - what is due is done when Redis is asked next: what comes in and expires in between is over
//     without having stood in line;
//   - lanes of models that share a device take turns within each host (turns.h): a host asks for
//     jobs of the lane whose turn it is there;
//   - the cost of what stands before a job is not summed: a wait is foretold from the position and
//     the mean cost;
//   - priorities are cut to ±(2^52 - 1), for Lua's numbers are doubles;
//   - an owner who owes is forgiven only as virtual time passes, not as the one who owes least of
//     65,536;
//   - a job that is to be tried alone, and one that is set apart, stays with its host, as if it
//   ran;
//   - changed settings (aging, above all) hold from the next look on.
//
// Taking. Whoever takes a job holds it by a lease, which is the host's (membership.h), and by a
// fence: a number that is higher each time that the job is taken. What a host says of a job counts
// only with the fence of its last taking. So a job may run twice, but it ends once.
//
// Troubles. A request that was not sent is not answered, and has done nothing. One that was sent
// and is answered with kUnknown may have been done, or be done yet; each may be asked again:
//   add        is done once for an id: the second answer is kThere
//   serve      of a finished job: kOver (if it was done) tells no other's end from ours, and need
//              not. Jobs that were taken by a request whose answer is lost run nowhere: Membership
//              finds that Redis counts more than the host has, and gives them back
//   back       kNotOurs, once it is done
//   cancel     kOver
//   reap, renew, advance, positions, states, look, held, pause, mend   may be done any number of
//   times
// kRefused: Redis says why, and that it has done nothing. It is an error of ours, or of the
// key's content; or, of add, that Redis's memory is full ("OOM …").
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/redis/servers.h"
#include "worker/queue/order/scheduler.h"
#include "worker/queue/shared_order/scripts.h"

namespace penstock::queue {

class ScriptWords;

class SharedOrder {
 public:
  enum class Trouble : uint8_t { kNone, kUnknown, kRefused };
  template <typename T>
  struct Answer {
    T value{};  // while there is no trouble
    Trouble trouble = Trouble::kNone;
    std::string_view why;  // of kRefused, good until the call returns

    explicit operator bool() const noexcept { return trouble == Trouble::kNone; }
  };
  template <typename T>
  using Then = std::function<void(Answer<T>&)>;

  static constexpr int64_t kNever = -1;
  static constexpr int64_t kNowhere = -2;
  static constexpr int64_t kHighest = (int64_t{1} << 52) - 1;
  static constexpr size_t kMostAdded = 64;        // in one request
  static constexpr size_t kMostTaken = 64;        // likewise
  static constexpr size_t kMostFinished = 64;     // likewise
  static constexpr size_t kMostBytes = 1U << 20;  // in one request, but for the last job's
  static constexpr int64_t kMostSwept = 500;      // likewise

  // A queue's settings; its bounds are of all hosts together. What is over is kept for `keep_ms`.
  // `servers` lives longer; its settings have the layout and the scripts of order_script, and count
  // no hosts.
  SharedOrder(redis::Servers& servers, Scheduler::QueueSettings queue, int64_t keep_ms,
              uint64_t seed = 1);
  ~SharedOrder() { *alive_ = false; }
  SharedOrder(const SharedOrder&) = delete;
  SharedOrder& operator=(const SharedOrder&) = delete;

  // What is to be done at a job's end.
  enum Mark : uint8_t { kTellsUrl = 2, kTellsHooks = 4, kTellsFeed = 8, kKeepsBody = 16 };

  // What a job asks for. Times are us since 1970 by Redis's clock.
  struct Job {
    std::string_view id;  // without spaces; made by whoever accepted it, so that it may be repeated
    std::string_view lane;  // its model; empty: any
    uint64_t owner = 0;
    int64_t priority = 0;
    uint64_t cost = 1;    // 1 to FairShare::kMaxCost, else cut
    uint64_t weight = 1;  // 1 to FairShare::kMaxWeight, else cut
    int64_t not_before_us = 0;
    int64_t came_us = 0;      // 0: now
    int64_t deadline_us = 0;  // 0: the queue's own
    uint32_t attempts = 0;    // that have failed
    bool force = false;       // not refused by bounds: it was promised before
    // The deadline once it has been taken; 0: the same; kNever: none.
    int64_t ends_by_us = 0;
    std::string_view home;    // whose host is told of its end (see renew()); empty: none
    std::string_view key;     // idempotency; empty: none
    std::string_view key_is;  // what that stands for: other jobs of the key are to be the same
    int64_t key_ms = 0;
    std::string_view instead_of;  // a job that does not count as having the key
    uint8_t marks = 0;            // of Mark
    std::string_view listed;    // in whose list it is: its owner's hash, 32 digits; empty: in none
    bool waited = false;        // its home's caller waits for it, and nobody else
    bool anew = false;          // one of this id that is over begins again
    bool for_replicas = false;  // something is written in any case, for them to acknowledge
    // It is let in up to this position. 0: at any; kNever: at any, and its position is not told;
    // kNowhere: at none, unless it or its key is there.
    int64_t last_position = kNever;
    std::string_view body;
  };
  enum class Admission : uint8_t { kAdded = 1, kQueueFull, kOwnerFull, kThere, kKeyUsed, kTooFar };
  struct Added {
    Admission admission = Admission::kAdded;
    int64_t due_us = kNever;  // until something is due
    int64_t position = 0;     // of kAdded, if it was asked for; of kTooFar
    std::string job;          // of kThere, kKeyUsed: the one that is there
    std::string key_is;       // of kKeyUsed
  };
  // In their order, as if one after the other. As all that follow: false: it was not sent, and is
  // not answered. REQUIRES: at most kMostAdded.
  bool add(std::span<const Job> jobs, Then<std::vector<Added>> then);
  bool add(const Job& job, Then<Added> then);

  struct Finished {
    std::string_view id;
    uint64_t fence = 0;
    std::string_view result;
    int64_t keep_ms = 0;  // of its result; 0: as the queue has it
    char how = 'D';       // X: it is a dead letter
  };
  enum class End : int8_t { kOver = -1, kNotOurs = 0, kEnded = 1, kLastAttempt = 2 };
  struct Taken {
    std::string id;
    uint64_t fence = 0;
    uint32_t attempts = 0;
    int64_t came_us = 0;
    int64_t deadline_us = 0;  // 0: none
    uint64_t owner = 0;
    std::string lane;
    std::string home;  // empty: none
    std::string body;
  };
  struct Served {
    bool known = true;  // false: this host has lost its lease, and gets nothing
    int64_t due_us = kNever;
    std::vector<End> ended;  // of the finished, in their order
    std::vector<Taken> taken;
  };
  // What a host has finished is over, and `most` jobs for its workers of a lane are taken, in one
  // trip. REQUIRES: at most kMostTaken, kMostFinished.
  bool serve(std::string_view host, std::string_view lane, size_t most,
             std::span<const Finished> finished, Then<Served> then);

  // A job that a host gives back.
  struct Return {
    std::string_view id, host;
    uint64_t fence = 0;
    std::string_view result;  // if that was its last attempt
  };
  // As Scheduler::retry(). kEnded: it is back; kLastAttempt: it is over. `attempts`: as taken.
  bool retry(const Return& job, uint32_t attempts, Scheduler::Cause cause, Then<End> then);
  // As Scheduler::requeue() and postpone(): no attempt is counted.
  bool requeue(const Return& job, int64_t after_us, Then<End> then);
  bool cancel(std::string_view id, std::string_view result, Then<End> then, int64_t keep_ms = 0);

  // An end that was told is one, whatever Redis has lost since: also of a job that is not there. Of
  // a dead letter that was dropped since, or has begun anew since that taking: kNotOurs.
  // `how`: as of Known. `fence`: of the taking that ended so; 0: none did.
  bool mend(std::string_view id, uint64_t fence, char how, std::string_view result, int64_t keep_ms,
            Then<End> then);

  // Of each id: its position; 0 it runs, or is scheduled; -1 it is over, or not there.
  bool positions(std::span<const std::string_view> ids, Then<std::vector<int64_t>> then);

  // Of each id: Known::State.
  bool states(std::span<const std::string_view> ids, Then<std::vector<int64_t>> then);

  // A result that lies elsewhere is to be removed after so long; 0: it is.
  bool note_result(std::string_view name, int64_t after_ms, Then<bool> then);
  // Those that are to be removed by now.
  bool stale_results(size_t most, Then<std::vector<std::string>> then);

  struct Advanced {
    int64_t due_us = kNever;  // 0: more is due now
    std::vector<std::string> expired;
  };
  bool advance(Then<Advanced> then);

  enum class Life : int8_t { kLeaves = -1, kStays = 0, kJoins = 1 };
  struct Renewed {
    bool known = true;     // false: it must stop all that it runs, and join by another name
    uint64_t running = 0;  // jobs that Redis thinks it runs
    uint64_t hosts = 0;
    int64_t made_us = 0;  // when the queue was made: another: Redis has lost what it had
    int64_t due_us = kNever;
  };
  // `home`: what its host is to callers who wait: of a host that comes back by another name the
  // same. What they wait for is cancelled a while after that has not been renewed. Empty: nobody
  // waits.
  bool renew(std::string_view host, Life life, int64_t lease_us, Then<Renewed> then,
             std::string_view home = {});

  struct Reaped {
    uint64_t back = 0, over = 0;  // jobs
    uint64_t hosts = 0;           // and homes, still to be looked at
  };
  static constexpr int64_t kMissedUs = 10'000'000;  // then a home is gone
  bool reap(size_t most, Then<Reaped> then);

  struct Held {
    std::string id;
    uint64_t fence = 0;
  };
  // What a host runs, as Redis thinks.
  bool held(std::string_view host, Then<std::vector<Held>> then);

  bool pause(bool paused, Then<bool> then);

  struct Known {
    enum class State : uint8_t { kUnknown, kScheduled, kWaiting, kDelayed, kRunning, kOver };
    State state = State::kUnknown;
    uint32_t attempts = 0;
    uint64_t fence = 0;
    std::string host;
    char how = 0;  // D its host said so, X and it is a dead letter, C cancelled, E its deadline, L
                   // hosts were lost too often
    std::string result;    // or its body, where it has none
    int64_t ended_us = 0;  // once it is over
    // Of its URL (kTellsUrl): see Endings. due_us: until it is told; kNever: it is not.
    uint32_t tries = 0;
    uint8_t outcome = 0;
    int64_t due_us = kNever;
  };
  // Of body or result, `most` bytes at most; 0: all.
  bool look(std::string_view id, size_t most, Then<Known> then);

  struct List {
    std::vector<std::pair<std::string, Known>> jobs;  // the newest first
    std::string last;  // of those that were looked at, while there may be more
  };
  // Of jobs that are `listed`: an owner's; with an empty one all, or the dead letters. `before`:
  // an id; empty: from the newest. `most` at most, and so many bytes of each one's result.
  bool list(std::string_view owner, bool dead, std::string_view before, size_t most, size_t bytes,
            Then<List> then);
  // Of a job that is over: what it was asked, where that is kept; else empty.
  bool body(std::string_view id, Then<std::string> then);
  // It is kept no more. False: it is not over, or not there.
  bool drop(std::string_view id, Then<bool> then);
  // The job that last completed of those that ask the same; empty: none is known.
  bool earlier(std::string_view asked, Then<std::string> then);
  // This has.
  bool completed(std::string_view asked, std::string_view id, int64_t keep_ms);
  // Takes out of the lists what is not kept any more. True: again at once.
  bool sweep(Then<bool> then);

  // How a queue stands, and who says what of himself.
  struct Roster {
    struct Lane {
      std::string model;
      uint64_t jobs = 0;      // that may be taken
      int64_t oldest_us = 0;  // since the first of them came
    };
    struct Lease {
      std::string host;     // by which it takes jobs
      int64_t ends_us = 0;  // in so long; 0: it has ended, and its jobs are taken back
      uint64_t running = 0;
    };
    struct Said {
      int64_t holds_us = 0;  // yet; below 0: it has said no more for so long
      std::string text;      // then its beginning alone: kGoneBytes
    };
    std::string secret;  // under which all hosts hash owners and keys
    bool paused = false;
    uint64_t waiting = 0;  // the scheduled and delayed too
    std::vector<Lane> lanes;
    std::vector<Lease> leases;
    std::vector<Said> said;
  };
  static constexpr size_t kGoneBytes = 512;
  struct Say {
    std::string_view host;
    std::string_view text;
    int64_t lasts_us = 0;
    std::string_view secret;  // theirs, unless they have one
    // What is said back on c|TO; empty: nothing.
    std::string_view back, to;
  };
  // A host says what it serves, and hears what all do.
  bool tell(const Say& say, Then<Roster> then);

  // What is over from now on is kept for `keep_ms`.
  void set(const Scheduler::QueueSettings& queue, int64_t keep_ms) {
    queue_ = queue;
    keep_ms_ = keep_ms;
  }
  // Requests that were answered, and how long that took in all.
  struct Calls {
    uint64_t answered = 0;
    int64_t ns = 0;
  };
  const Calls& calls() const noexcept { return calls_; }
  // A test's own time instead of Redis's.
  void set_clock(int64_t now_us) noexcept { now_us_ = now_us; }
  const std::string& key() const noexcept { return key_; }
  bool ready() const noexcept { return servers_.ready(key_); }

  // Who takes jobs is one of these: kHostBytes letters and digits, at random.
  static constexpr size_t kHostBytes = 8;
  static std::string new_host();

 private:
  ScriptWords words(int64_t keep_ms = 0) const;
  std::string numbers_of(const Job& job) const;
  bool ask_of(redis::Script script, std::span<const std::string_view> ids,
              Then<std::vector<int64_t>> then);
  template <typename T>
  bool ask(redis::Script script, const ScriptWords& words, bool (*read)(const redisReply&, T&),
           Then<T> then);

  redis::Servers& servers_;
  Scheduler::QueueSettings queue_;
  const std::string key_;
  int64_t keep_ms_;
  // Answers that come when this is gone are nobody's.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  uint64_t random_;
  int64_t now_us_ = 0;
  Calls calls_;
};

}  // namespace penstock::queue
