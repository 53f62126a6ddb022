// Callers: every connection to penstockd's socket, from when it is accepted to its end.
//
// A peer that connects is looked at first (Roles), then listened to. Connections are bounded, and
// some places are kept for operators. A peer that says nothing is sent away. Strangers take
// nobody's place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shared/base/event_loop.h"
#include "worker/queue/api/caller_session.h"
#include "worker/queue/api/edge_versions.h"
#include "worker/queue/config/config.h"
#include "worker/queue/link/listener.h"
#include "worker/queue/link/roles.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {

class Callers final : public EventLoop::Handler, public CallerHost {
 public:
  // So many files are open where so many connections are: what else there is needs some.
  static constexpr uint64_t descriptors_of(uint32_t connections) { return connections + 512; }

  // All outlive this; `status` is what tools are shown.
  Callers(EventLoop& loop, ConnectionLoop& connections, Listener listener, Roles roles,
          const Handlers& handlers, std::function<std::string()> status);
  Callers(const Callers&) = delete;
  Callers& operator=(const Callers&) = delete;
  ~Callers() override;  // says goodbye to all

  // Opens the socket. The Error names it.
  Status listen(const Access& access);
  void set_limits(const LimitsConfig& limits);
  // `access:` was changed: peers that may no longer have their role leave.
  void set_roles(Roles roles);

  // A process that may be a worker has said HELLO: `unread` is what it has said so far. An Error:
  // it may not; then `fd` is left.
  std::function<Status(Fd& fd, const std::string& unread, pid_t pid)> on_worker_connected;

  const EdgeVersions& edge_versions() const { return edge_versions_; }
  // As the next penstockd takes them over (callers_hand_over.cc): the listener, and each
  // connection; `order` is of whoever ordered that.
  struct UpgradeOrder {
    Caller* caller = nullptr;  // nullptr: a signal did
    uint64_t id = 0;
  };
  void hold();
  void go_on();
  void hand_over(RecordWriter& record, const UpgradeOrder& order);
  uint64_t place_of(const Caller& caller) const { return places_.at(&caller); }
  Status keep_over_exec(bool keep);
  Status take_over(const CarriedCaller& caller);
  Caller* caller_at(uint64_t place) const {
    return place < taken_.size() ? taken_[place] : nullptr;
  }
  // Of those that were taken over: who waits to be told of the upgrade.
  const UpgradeOrder& upgrade_order() const { return upgrade_order_; }

  size_t connections() const { return newcomers_.size() + callers_.size(); }

  void advance_to(int64_t now_ns);
  int64_t next_event() const;

 private:
  void on_events(uint32_t events) override;
  void welcome(Fd fd);
  bool has_room_for(const Credentials& peer) const;
  void pause_accepting();

  std::string status_json() override { return status_(); }
  void on_caller_closed(CallerSession& session) override;
  void on_greeted(CallerSession& session) override;
  void on_worker(CallerSession& session, std::string hello) override;
  void on_edge(const CallerSession& session, const wire::Hello& hello, bool refused) override;
  void on_refused(std::string_view who, std::string_view reason) override;
  void on_denied(std::string_view reason) override;

  EventLoop& loop_;
  ConnectionLoop& connections_;
  Listener listener_;
  Roles roles_;
  const Handlers& handlers_;
  std::function<std::string()> status_;
  int64_t hello_timeout_ns_ = 0;
  std::list<CallerSession> newcomers_;  // no HELLO has come; the oldest first
  std::list<CallerSession> callers_;
  size_t strangers_ = 0;                 // of the newcomers, who may be nothing here
  size_t most_ = 0;                      // that there are descriptors for
  int64_t accept_again_ns_ = INT64_MAX;  // accepting is paused until then
  EdgeVersions edge_versions_;
  std::unordered_map<const Caller*, uint64_t> places_;  // while they are handed over
  std::vector<Caller*> taken_;                          // by place
  UpgradeOrder upgrade_order_;
  BoundedLog refusals_;
  BoundedLog troubles_;
};

}  // namespace penstock::queue
