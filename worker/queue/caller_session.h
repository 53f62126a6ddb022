// CallerSession: the connection of a caller (an Nginx worker) or a tool.
//
// Checks what comes in, keeps which of the caller's ids are in use, and hands jobs to the
// Dispatcher. When the connection closes, all of its jobs are abandoned.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "shared/wire/messages.h"
#include "worker/queue/connection.h"
#include "worker/queue/job.h"
#include "worker/queue/log.h"

namespace penstock::queue {

class CallerSession;
class Dispatcher;

// Who keeps the sessions. Outlives them.
class CallerHost {
 public:
  virtual ~CallerHost() = default;
  virtual std::string status_json() = 0;
  // The session is at its end and is destroyed in here.
  virtual void on_caller_closed(CallerSession& session) = 0;
  virtual void on_refused(std::string_view who, std::string_view reason) = 0;
};

class CallerSession final : public Connection {
 public:
  static constexpr size_t kMaxJobs = 1024;  // in flight
  static constexpr size_t kPauseBytes = 1U << 20;

  CallerSession(Wires& wires, Fd fd, Dispatcher& dispatcher, CallerHost& host)
      : Connection(wires, std::move(fd), kPauseBytes), dispatcher_(dispatcher), host_(host) {}

  // A job was accepted under `job.caller_job`; ACCEPTED has yet to be said.
  void remember(Job& job) { jobs_.push_back({job.caller_job, &job}); }
  // The job is over: its id is free again.
  void forget(const Job& job);

  // Where to find the session among its host's.
  std::list<CallerSession>::iterator self;

 private:
  struct InFlight {
    uint64_t id;
    Job* job;
  };
  void on_frame(const wire::Frame& frame, std::string_view bytes) override;
  void on_closed() override;
  bool on_oversized(const wire::FrameHeader& header) override;
  void on_refused(std::string_view reason) override;
  void on_hello(const wire::Frame& frame);
  void on_submit(const wire::Frame& frame, std::string_view bytes);
  void on_status(const wire::Frame& frame);
  Job* find(uint64_t id) const;

  Dispatcher& dispatcher_;
  CallerHost& host_;
  uint64_t role_ = 0;           // wire::Role; 0 before HELLO
  std::vector<InFlight> jobs_;  // few, usually one
};

}  // namespace penstock::queue
