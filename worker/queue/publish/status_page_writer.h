// StatusPageWriter: publishes the status page (shared/wire/status_page.h) beside the socket.
#pragma once

#include <bitset>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "shared/wire/status_page.h"
#include "worker/queue/link/listener.h"

namespace penstock::queue {

class StatusPageWriter {
 public:
  static constexpr int64_t kHeartbeatNs = 500'000'000;
  static constexpr int64_t kWriteNs = 1'000'000;  // numbers are written at most this often

  // Makes the file under another name and renames it into place, so that no reader ever sees half
  // a page, and readers of an older one keep theirs.
  static Result<StatusPageWriter> create(const std::string& path, const Access& access);
  StatusPageWriter(StatusPageWriter&&) = default;
  StatusPageWriter& operator=(StatusPageWriter&&) = delete;
  ~StatusPageWriter();  // removes the file

  // `real_ns`: the time as readers see it.
  void heartbeat(int64_t now_ns, int64_t real_ns);
  // Writes what has changed: a queue's state at once, numbers from time to time. Written, not
  // mapped: a file that someone cuts short must not kill the writer.
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
  // It is in no configuration any more, and has no jobs.
  void retire(std::string_view queue);

 private:
  wire::QueueStatus* row_of(std::string_view queue);
  StatusPageWriter(std::string path, Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  void write(int64_t now_ns);

  std::string path_;
  Fd fd_;  // invalid: moved from
  std::unique_ptr<wire::StatusPage> page_ = std::make_unique<wire::StatusPage>();
  bool changed_ = false;        // since it was written
  bool state_changed_ = false;  // of some queue
  std::bitset<wire::kMaxQueues> retired_;
  int64_t written_ns_ = 0;
};

}  // namespace penstock::queue
