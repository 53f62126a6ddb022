// CallerSession: the connection of a caller (an Nginx worker), of a tool, or the edge's own line.
//
// Checks what comes in, and that whoever sends it may (Roles); keeps which of the caller's ids are
// in use, and hands requests to the Desks. When the connection closes, all who waited on it have
// left.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "shared/wire/messages.h"
#include "worker/queue/jobs/waiter.h"
#include "worker/queue/link/connection.h"
#include "worker/queue/link/roles.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {

class CallerSession;
class Dispatcher;
class Intake;
class JobsApi;

// Where a session brings what it is asked. Outlives the sessions.
struct Desks {
  Dispatcher& dispatcher;
  Intake& intake;
  JobsApi& jobs_api;
};

// Who keeps the sessions. Outlives them.
class CallerHost {
 public:
  virtual ~CallerHost() = default;
  virtual std::string status_json() = 0;
  // The session is at its end and is destroyed in here.
  virtual void on_caller_closed(CallerSession& session) = 0;
  // Its HELLO was good.
  virtual void on_greeted(CallerSession& session) = 0;
  virtual void on_refused(std::string_view who, std::string_view reason) = 0;
  // It wanted a role that it may not have.
  virtual void on_denied(std::string_view reason) = 0;
};

class CallerSession final : public Connection {
 public:
  static constexpr size_t kMaxRequests = 1024;  // in flight
  static constexpr size_t kPauseBytes = 1U << 20;

  CallerSession(Wires& wires, Fd fd, const Desks& desks, CallerHost& host, const Credentials& peer)
      : Connection(wires, std::move(fd), kPauseBytes),
        arrived_ns(wires.now_ns()),
        desks_(desks),
        host_(host),
        peer_(peer) {}

  bool is_tool() const { return has_role(wire::Role::kTool); }
  bool greeted() const { return role_ != 0; }  // HELLO has come
  const Credentials& peer() const { return peer_; }
  // `access:` was changed: ends the connection if what it is may no longer be.
  void set_roles(uint8_t roles);
  // Somebody waits under `waiter.id` from now on.
  void remember(Waiter& waiter) { requests_.push_back({waiter.id, &waiter}); }
  // The request is over: its id is free again.
  void forget(const Waiter& waiter);

  // Where to find the session among its host's.
  std::list<CallerSession>::iterator self;
  const int64_t arrived_ns;

 private:
  struct InFlight {
    uint64_t id;
    Waiter* waiter;
  };
  void on_frame(const wire::Frame& frame, std::string_view bytes) override;
  void on_closed() override;
  void on_drained() override;
  bool on_oversized(const wire::FrameHeader& header) override;
  bool on_begun(const wire::FrameHeader& header) override;
  void on_refused(std::string_view reason) override;
  void on_hello(const wire::Frame& frame);
  void on_submit(const wire::Frame& frame, std::string_view bytes);
  void on_ask(const wire::Frame& frame);
  void on_status(const wire::Frame& frame);
  bool has_role(wire::Role role) const { return role_ == static_cast<uint64_t>(role); }
  bool may_be(uint64_t role) const;
  void deny(uint64_t role);
  bool good_id(uint64_t id);
  Waiter* find(uint64_t id) const;

  const Desks& desks_;
  CallerHost& host_;
  Credentials peer_;
  uint64_t role_ = 0;               // wire::Role; 0 before HELLO
  std::vector<InFlight> requests_;  // few, usually one
};

}  // namespace penstock::queue
