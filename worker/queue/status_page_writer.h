// StatusPageWriter: publishes the status page (shared/wire/status_page.h) beside the socket.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "shared/base/result.h"
#include "shared/wire/status_page.h"
#include "worker/queue/listener.h"

namespace penstock::queue {

class StatusPageWriter {
 public:
  static constexpr int64_t kHeartbeatNs = 500'000'000;

  // Makes the file under another name and renames it into place, so that no reader ever sees half
  // a page, and readers of an older one keep theirs.
  static Result<StatusPageWriter> create(const std::string& path, const Access& access);
  StatusPageWriter(StatusPageWriter&&) = default;
  StatusPageWriter& operator=(StatusPageWriter&&) = delete;
  ~StatusPageWriter();  // removes the file and makes its readers distrust it

  void heartbeat(int64_t now_ns);

  struct Row {
    wire::QueueState state = wire::QueueState::kOpen;
    uint32_t length = 0;
    uint32_t running = 0;
    uint32_t slots = 0;
    uint64_t predicted_wait_ms = 0;
    uint64_t retry_after_s = 0;
  };
  // Rows of queues are added in the order they are first named, at most kMaxQueues; a row is never
  // taken away.
  void set(std::string_view queue, const Row& row);

 private:
  struct Unmap {
    void operator()(wire::StatusPage* page) const;
  };
  StatusPageWriter(std::string path, wire::StatusPage* page)
      : path_(std::move(path)), page_(page) {}

  std::string path_;
  std::unique_ptr<wire::StatusPage, Unmap> page_;
};

}  // namespace penstock::queue
