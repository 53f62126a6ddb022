// AnswerWriter: what the jobs that run here answer, on its way to those who wait on other hosts.
//
//   to the home, where a caller waits:   PUBLISH on the home's channel, parts of all jobs gathered
//                                        for 5 ms
//   for whoever comes later (resumable): XADD to the job's own stream, gathered for 40 ms
//
// So Redis has one request for many parts: 200 a second for each home, and one for each 14 entries.
// What is published after a pause goes out at the end of the turn of the loop.
//
// Redis away: what is said waits, up to a bound; beyond it, it is dropped and counted. What was
// sent and not answered is not published again, as nobody may have heard, but goes to the stream
// again, which takes each place once. Whoever reads finds the gap by the parts' numbers. The job's
// end comes by the order's record, whatever became of its parts.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shared/base/clock.h"
#include "shared/redis/servers.h"
#include "worker/queue/shared_answers/parts.h"

namespace penstock::queue {

class AnswerWriter {
 public:
  struct Settings {
    int64_t keep_ms = 3'600'000;  // a stream, after its last entry
    int64_t gather_ns = 5 * kNsPerMs;
    int64_t gather_kept_ns = 40 * kNsPerMs;
    size_t most_stream_bytes = 1U << 20;    // of a job; what was first is trimmed
    size_t most_waiting_bytes = 16U << 20;  // of all jobs, until Redis has answered
  };
  // `key`: SharedOrder::key(), of the jobs' queue. `servers` lives longer; its scripts are
  // order_script's.
  AnswerWriter(redis::Servers& servers, std::string key, Settings settings);
  ~AnswerWriter();
  AnswerWriter(const AnswerWriter&) = delete;
  AnswerWriter& operator=(const AnswerWriter&) = delete;

  // A job was taken. `home`: the host whose channel hears its parts; empty: nobody waits on another
  // host. What was said under an earlier fence is forgotten. REQUIRES: id and bytes within Part's
  // bounds, as for all that follow; a chunk may be larger.
  void begin(std::string_view id, uint64_t fence, std::string_view home, bool resumable,
             std::string_view bytes = {});
  // Jobs that are not there, any more, say nothing. kBegun: its answer begins anew. REQUIRES: no
  // kEnd.
  void say(std::string_view id, Part::Kind kind, std::string_view bytes);
  // Its last part. What was published before a request to finish the job, that is sent from here,
  // is heard before the end of which the order tells. Of a job that ends before its stream has
  // anything, that gets nothing.
  void end(std::string_view id, std::string_view bytes = {});
  // The number of its next part; 0: it is not there.
  uint64_t next(std::string_view id) const {
    const auto job = jobs_.find(std::string(id));
    return job == jobs_.end() ? 0 : job->second.next;
  }
  // It is not this host's any more.
  void leave(std::string_view id) { jobs_.erase(std::string(id)); }

  // Elapsed time is pushed in: after each turn of the loop.
  void advance_to(int64_t now_ns);
  int64_t next_event() const noexcept;

  struct Counts {
    uint64_t messages = 0;  // that were published
    uint64_t entries = 0;   // that streams have taken
    uint64_t dropped = 0;   // parts: there was no room to keep them until Redis takes them
    uint64_t unknown = 0;   // parts: published perhaps, as Redis did not answer
    uint64_t unheard = 0;   // messages: nobody listened
    uint64_t stale = 0;     // entries: the stream had them, or those of a later taking
    uint64_t refused = 0;   // requests: an error of Redis's, such as that its memory is full
  };
  const Counts& counts() const noexcept { return counts_; }
  size_t waiting_bytes() const noexcept { return waiting_bytes_; }

 private:
  struct Message {
    std::string text;
    size_t parts = 0;
  };
  struct Entry {
    std::string id;
    PartPlace last;
    size_t most = 0;  // entries of the stream
    int64_t due_ns = 0;
    std::string parts;
  };
  struct Job {
    uint64_t fence = 0;
    uint64_t next = 1;
    std::string home;
    bool resumable = false;
    uint64_t open = 0;  // its entry; 0: none
    uint64_t kept_bytes = 0, kept_entries = 0;
  };
  using Entries = std::map<uint64_t, Entry>;  // by their numbers among all
  struct Sent;
  static size_t size_of(const Entry& entry) noexcept;

  void say(std::string_view id, Job& job, Part::Kind kind, std::string_view bytes);
  void publish(std::string_view id, const Job& job, const Part& part);
  void keep(std::string_view id, Job& job, const Part& part);
  bool is_due(int64_t now_ns) const noexcept;
  bool may_send() const noexcept;
  bool send(const std::string& home, const Message& message);
  void send_messages();
  bool send_entries(int64_t now_ns);
  bool call(redis::Script script, std::span<const std::string_view> words,
            std::unique_ptr<Sent>& sent);
  void answered(Sent& sent, const redisReply* reply);

  redis::Servers& servers_;
  const std::string key_;
  const Settings settings_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // of answers that come too late
  std::unordered_map<std::string, Job> jobs_;
  std::map<std::string, Message, std::less<>> messages_;  // by home
  Entries entries_;                                       // not sent yet
  Entries again_;                                         // before those: sent, and not answered
  uint64_t opened_ = 0;                                   // entries so far
  size_t waiting_bytes_ = 0;
  size_t sent_bytes_ = 0;  // of those
  int64_t now_ns_ = 0;
  int64_t send_ns_ = 0;  // when the next messages may go, at the earliest
  int64_t keep_ns_ = 0;  // likewise entries that are due
  Counts counts_;
};

}  // namespace penstock::queue
