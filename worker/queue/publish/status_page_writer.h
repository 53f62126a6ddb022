// StatusPageWriter: publishes the status page (shared/wire/status_page.h) beside the socket.
#pragma once

#include <bitset>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "shared/base/result.h"
#include "shared/wire/status_page.h"
#include "worker/queue/link/listener.h"
#include "worker/queue/publish/published_file.h"

namespace penstock::queue {

class StatusPageWriter {
 public:
  static constexpr int64_t kHeartbeatNs = 500'000'000;
  static constexpr int64_t kWriteNs = 1'000'000;  // numbers are written at most this often

  static Result<StatusPageWriter> create(const std::string& path, const Access& access);

  // `real_ns`: the time as readers see it.
  void heartbeat(int64_t now_ns, int64_t real_ns);
  // Writes what has changed: a queue's state at once, numbers from time to time.
  void flush(int64_t now_ns);
  int64_t next_event() const { return changed_ ? written_ns_ + kWriteNs : INT64_MAX; }

  struct Row {
    wire::QueueState state = wire::QueueState::kOpen;
    uint32_t length = 0;
    uint32_t running = 0;
    uint32_t slots = 0;
    uint64_t predicted_wait_ms = 0;
    uint64_t retry_after_s = 0;
    uint64_t drain_step_us = 0;
    int64_t returns_until_ns = 0;
  };
  // Rows of queues are added in the order they are first named, at most kMaxQueues. Past them a
  // queue gets the row of one that was retired.
  void set(std::string_view queue, const Row& row);
  // The queue is in no configuration any more, and has no jobs.
  void retire(std::string_view queue);

 private:
  wire::QueueStatus* row_of(std::string_view queue);
  StatusPageWriter(PublishedFile file, std::unique_ptr<wire::StatusPage> page)
      : file_(std::move(file)), page_(std::move(page)) {}
  void write(int64_t now_ns);

  PublishedFile file_;
  std::unique_ptr<wire::StatusPage> page_;
  bool changed_ = false;        // since it was written
  bool state_changed_ = false;  // of some queue
  std::bitset<wire::kMaxQueues> retired_;
  int64_t written_ns_ = 0;
};

}  // namespace penstock::queue
