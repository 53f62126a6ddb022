// AnswerReader: what jobs answer that run on other hosts, in order and without holes.
//
//   follow   the caller waits here: parts come by this host's channel, as they are said
//   read     anybody's, from a place on: parts come from the job's stream, and its channel says
//   when
//            there are more
//
//                    next number                          a hole, and the job is resumable
//   following ──────────────────▶ told          following ─────────────────────▶ filling, by XRANGE
//       │  │ later fence: restarted, from 1                                          │ from the
//       │  └──▶ following         ◀──────────────────────────────────────────────────┘ stream
//       │ end                               │ it is not there, or not resumable
//       ▼                                   ▼
//     ended                               lost, until a later fence
//
// Messages are hints: what was missed while Redis was away is looked for in the stream once the
// channel is heard again. What has been told already, and what an earlier taking says, is dropped.
//
// A follower that cannot take more pauses. What comes meanwhile waits here, up to a bound; what is
// beyond it is read from the stream later, or, where there is none, lost.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/base/clock.h"
#include "shared/redis/subscription.h"
#include "worker/queue/shared_answers/parts.h"

namespace penstock::queue {

class AnswerReader final : redis::Subscription::Listener {
 public:
  class Follower {
   public:
    // In order, without holes. The bytes are good until it returns.
    virtual void on_part(const Part& part) = 0;
    // The job was taken once more: the answer starts anew, and what was told is not part of it.
    virtual void on_restarted(uint64_t fence) = 0;
    // What follows is not to be had: the answer must start anew, or fail. Nothing more comes,
    // unless the job is taken once more.
    virtual void on_lost() = 0;
    // Of one that reads: the order says that the job is over. Not all parts may have been told.
    // REQUIRES: the reader is left as it is.
    virtual void on_over() {}

   protected:
    ~Follower() = default;
  };

  struct State;

  // Until it is destroyed, its follower is told. It may be destroyed by what it tells.
  class Following {
   public:
    explicit Following(std::shared_ptr<State> state) : state_(std::move(state)) {}
    ~Following();
    Following(const Following&) = delete;
    Following& operator=(const Following&) = delete;

    // From here on nothing is told, but what a later fence and a loss mean.
    void pause();
    void resume();
    // The order says that the job is over. If its last part does not come soon, it is lost.
    void over();
    // Up to where it was told.
    PartPlace told() const;

   private:
    const std::shared_ptr<State> state_;
  };

  struct Settings {
    size_t most_held_bytes = 1U << 20;      // of a follower that is paused, or has a hole
    int64_t fill_for_ns = 2 * kNsPerSec;    // a hole is lost then, while Redis answers
    int64_t fill_every_ns = 50 * kNsPerMs;  // writers gather for 40 ms
    int64_t grace_ns = 250 * kNsPerMs;      // parts may come so long behind the job's end
    int64_t look_every_ns = kNsPerSec;      // for what no message has told of
  };

  // `key`: SharedOrder::key(), of the jobs' queue. Both live longer, and the Servers' scripts are
  // order_script's.
  AnswerReader(redis::Servers& servers, redis::Subscription& subscription, std::string key,
               Settings settings);
  ~AnswerReader();
  AnswerReader(const AnswerReader&) = delete;
  AnswerReader& operator=(const AnswerReader&) = delete;

  // What this host's channel says, by whoever listens to it. Messages that do not begin with
  // kPartsMessage are others'.
  void on_message(std::string_view text);
  // The channel is heard from here on, or again: of what has begun, some may have been missed. Of
  // many jobs it is looked for some at a time.
  void on_listening();

  // A job whose parts this host's channel is told, from behind a place on. The follower lives
  // longer.
  std::unique_ptr<Following> follow(std::string_view id, PartPlace after, bool resumable,
                                    Follower& follower);
  // A job's stream, from behind a place on.
  std::unique_ptr<Following> read(std::string_view id, PartPlace after, Follower& follower);

  // Elapsed time is pushed in: after each turn of the loop.
  void advance_to(int64_t now_ns);
  int64_t next_event() const noexcept;

  struct Counts {
    uint64_t parts = 0;      // that were told
    uint64_t unwanted = 0;   // of jobs that nobody follows
    uint64_t repeated = 0;   // told already, or of an earlier taking
    uint64_t fills = 0;      // requests for what a stream has
    uint64_t lost = 0;       // answers
    uint64_t malformed = 0;  // messages and entries
  };
  const Counts& counts() const noexcept { return counts_; }

 private:
  using Shared = std::shared_ptr<State>;
  static constexpr size_t kMostAsked = 16;  // fills at once
  static constexpr size_t kMostLost = 64;   // at once, of what may have been missed
  static constexpr int64_t kLoseEveryNs = 10 * kNsPerMs;

  void on_listening(std::string_view channel) override;
  void on_message(std::string_view channel, std::string_view text) override;

  std::string channel_of(std::string_view id) const;
  std::unique_ptr<Following> add(std::string_view id, PartPlace after, bool live, bool resumable,
                                 Follower& follower);
  void remove(State& state);
  void set_due(State& state, int64_t due_ns);

  void on_part(State& state, const Part& part);
  void on_kept_part(State& state, const Part& part);
  bool is_new(State& state, const Part& part);
  void tell(State& state, const Part& part);
  void hold(State& state, const Part& part);
  void tell_held(State& state);
  void lose(State& state);
  void lose_missed();
  void look_after(State& state);

  void fill(State& state);
  void ask();
  bool ask(const Shared& state);
  void filled(State& state, const redisReply* reply);
  bool take_entries(State& state, const redisReply& reply);

  redis::Servers& servers_;
  redis::Subscription& subscription_;
  const std::string key_;
  const Settings settings_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // of answers that come too late
  std::multimap<std::string, Shared, std::less<>> states_;      // by job
  std::set<std::pair<int64_t, State*>> due_;
  std::deque<std::weak_ptr<State>> to_fill_;
  std::deque<std::weak_ptr<State>> missed_;  // some may be, and no stream has it
  int64_t lose_ns_ = 0;                      // the next of those
  size_t asked_ = 0;
  Counts counts_;
};

}  // namespace penstock::queue
