// EventFeed: every job's end as an entry of one stream in Redis, PREFIX:events, that is cut at so
// many (`redis: events:`). Whoever bills or counts reads it with a consumer group.
//
// Ends of jobs that hosts share are taken from their queues (shared_order/endings.h): each is in
// the feed at least once, whatever dies. Those of jobs that are this host's alone wait in memory
// while Redis is away, and are lost with this host.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "worker/queue/jobs/dispatcher.h"

namespace penstock::queue {

class EventFeed {
 public:
  static constexpr size_t kMostKept = 10'000;  // in memory
  static constexpr size_t kAtOnce = 64;
  static constexpr int64_t kEveryNs = kNsPerSec;
  static constexpr int64_t kLeaseUs = 5'000'000;

  // Both live longer.
  EventFeed(Dispatcher& dispatcher, SharedJobs& shared)
      : dispatcher_(dispatcher), shared_(shared) {}
  ~EventFeed() { *alive_ = false; }
  EventFeed(const EventFeed&) = delete;
  EventFeed& operator=(const EventFeed&) = delete;

  void set(const RedisConfig& redis);
  void advance_to(int64_t now_ns);
  int64_t next_event() const;
  // Whether Redis has what is this host's alone.
  bool settled() const { return own_.empty() && !sending_; }

 private:
  void add(const JobRecord& job);
  void trim();
  void look(SharedQueue& queue);
  void taken(SharedQueue& queue, const std::vector<Endings::Taken>& ends);
  void send_own();
  // `then`: whether they are in the stream.
  void send(const std::vector<std::string>& events, const std::function<void(bool)>& then);

  Dispatcher& dispatcher_;
  SharedJobs& shared_;
  uint32_t most_ = 0;  // 0: there is no feed
  std::string key_;
  std::deque<std::string> own_;
  size_t dropped_ = 0;
  bool sending_ = false;
  int64_t look_ns_ = 0;
  int64_t send_ns_ = 0;
  int64_t now_ns_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace penstock::queue
