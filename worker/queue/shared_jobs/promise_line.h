// PromiseLine: adds jobs so that a number of replicas have them before anybody is told.
//
// Its connections are its own, for WAIT holds up what comes behind it. All that has gathered while
// one WAIT was under way goes out together, before the next. What was added and is not acknowledged
// in time may be there all the same: it is said again, or refused by whoever asked.
//
// WAIT tells of what its own connection has written, to the server that has answered. So a job that
// was there already has something written as well, and no call follows its key to another server.
//
// Source: https://redis.io/docs/latest/commands/wait/
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/queue/shared_order/shared_order.h"

namespace penstock::queue {

class PromiseLine {
 public:
  static constexpr int64_t kWaitMs = 400;

  // `servers` lives longer; see the settings of SharedOrder, and that they follow no keys.
  PromiseLine(redis::Servers& servers, const Scheduler::QueueSettings& settings, int64_t keep_ms,
              uint32_t replicas);
  ~PromiseLine() { *alive_ = false; }
  PromiseLine(const PromiseLine&) = delete;
  PromiseLine& operator=(const PromiseLine&) = delete;

  void set(const Scheduler::QueueSettings& settings, int64_t keep_ms) {
    order_.set(settings, keep_ms);
  }
  bool ready() const noexcept { return order_.ready(); }
  // As SharedOrder's; it is always answered, and what the job refers to lives until then.
  // kUnknown also where too few replicas have it: then is_short().
  void add(SharedOrder::Job job, SharedOrder::Then<SharedOrder::Added> then);
  // After all add() of a turn.
  void flush();

  // Whether the last of these was not acknowledged by enough.
  bool is_short() const noexcept { return short_; }
  uint32_t replicas() const noexcept { return replicas_; }

  // How replicas have acknowledged what was promised.
  struct Acknowledged {
    int64_t replicas = 0;
    int64_t at_ns = 0;         // 0: nothing was promised yet
    uint64_t failed = 0;       // times that too few did, or nobody knows
    int64_t failed_ns = 0;     // the last of these; 0: none
    int64_t failed_with = -1;  // so many did then; -1: Redis did not answer
  };
  const Acknowledged& acknowledged() const noexcept { return acknowledged_; }

 private:
  struct Entry {
    SharedOrder::Job job;
    SharedOrder::Then<SharedOrder::Added> then;
    SharedOrder::Answer<SharedOrder::Added> answer;
    std::string why;  // of its answer
  };
  using Batch = std::vector<Entry>;

  void send(const std::shared_ptr<Batch>& batch, size_t first, size_t count);
  void waited(Batch& batch, int64_t replicas);

  redis::Servers& servers_;
  SharedOrder order_;
  const uint32_t replicas_;
  Batch gathered_;
  bool asking_ = false;
  bool short_ = false;
  Acknowledged acknowledged_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace penstock::queue
