// CallerSession: what a Caller sends, frame by frame.
//
// It checks what comes in and whether the sender may send it (Roles), and hands requests to the
// Handlers. When the connection closes, all who waited on it leave.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "shared/wire/messages.h"
#include "worker/queue/api/audit.h"
#include "worker/queue/handover/record.h"
#include "worker/queue/jobs/caller.h"

namespace penstock::queue {

class CallerSession;
class Dispatcher;
class Intake;
class JobsApi;
class OperatorApi;
class ProviderChecks;

// Where a session brings what it is asked. Outlives the sessions.
struct Handlers {
  Dispatcher& dispatcher;
  Intake& intake;
  JobsApi& jobs_api;
  OperatorApi* operator_api = nullptr;  // nullptr: tools ask as callers do
  ProviderChecks* checks = nullptr;     // nullptr: no provider is asked
};

// CallerHost keeps the sessions, and outlives them.
class CallerHost {
 public:
  virtual ~CallerHost() = default;
  virtual std::string status_json() = 0;
  // The session is at its end and is destroyed in here.
  virtual void on_caller_closed(CallerSession& session) = 0;
  // Its HELLO was good.
  virtual void on_greeted(CallerSession& session) = 0;
  // A peer that may be an Nginx has said HELLO; `refused`: it wants another protocol.
  virtual void on_edge(const CallerSession& session, const wire::Hello& hello, bool refused) = 0;
  virtual void on_refused(std::string_view who, std::string_view reason) = 0;
  // It is a worker's process. `session.release()` gives its socket; the session is destroyed in
  // here. `hello`: its first frame.
  virtual void on_worker(CallerSession& session, std::string hello) = 0;
  // It wanted a role that it may not have.
  virtual void on_denied(std::string_view reason) = 0;
};

class CallerSession final : public Caller {
 public:
  static constexpr size_t kMaxRequests = 1024;  // in flight
  static constexpr size_t kPauseBytes = 1U << 20;

  CallerSession(ConnectionLoop& connections, Fd fd, const Handlers& handlers, CallerHost& host,
                const Credentials& peer)
      : Caller(connections, std::move(fd), kPauseBytes, peer),
        arrived_ns(connections.now_ns()),
        handlers_(handlers),
        host_(host) {}

  bool greeted() const { return role_ != 0; }  // HELLO has come
  // `access:` was changed: ends the connection if the peer may no longer have its role.
  void set_roles(uint8_t roles);

  // It has waited for penstockd to be upgraded, and is told of that by the next one.
  const Order* order(uint64_t id) const { return orders_.find(id); }
  // As it was in an earlier life. REQUIRES: it was opened just now.
  void take_over(const CarriedCaller& caller);

  // Where to find the session among its host's.
  std::list<CallerSession>::iterator self;
  const int64_t arrived_ns;

 private:
  void on_frame(const wire::Frame& frame, std::string_view bytes) override;
  void on_closed() override;
  void on_drained() override;
  void on_written(std::string_view frames) override;
  bool on_oversized(const wire::FrameHeader& header) override;
  bool on_begun(const wire::FrameHeader& header) override;
  void on_refused(std::string_view reason) override;
  void on_hello(const wire::Frame& frame, std::string_view bytes);
  void on_submit(const wire::Frame& frame, std::string_view bytes);
  void on_spent(const wire::Frame& frame);
  void on_quota(const wire::Frame& frame);
  void on_ask(const wire::Frame& frame);
  void on_verify(const wire::Frame& frame);
  void on_status(const wire::Frame& frame);
  bool may_be(uint64_t role) const;
  bool may_turn(uint64_t role) const;
  void deny(uint64_t role);
  bool good_id(uint64_t id);

  const Handlers& handlers_;
  CallerHost& host_;
  std::string hello_;  // of a worker
  OpenOrders orders_;
};

}  // namespace penstock::queue
