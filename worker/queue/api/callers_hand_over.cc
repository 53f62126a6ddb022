// Callers: every connection, as one penstockd hands it to the next.
#include <sys/epoll.h>

#include "worker/queue/api/callers.h"
#include "worker/queue/jobs/dispatcher.h"

namespace penstock::queue {

void Callers::hold() {
  connections_.hold();
  loop_.modify(listener_.fd(), 0, this);
}

void Callers::go_on() {
  connections_.go_on();
  loop_.modify(listener_.fd(), EPOLLIN, this);
}

void Callers::hand_over(RecordWriter& record, const UpgradeOrder& order) {
  record.add(listener_.hand_over());
  places_.clear();
  for (auto* const list : {&newcomers_, &callers_}) {
    for (const CallerSession& caller : *list) {
      if (caller.closed()) {
        continue;
      }
      const Connection::Carried connection = caller.carry();
      CarriedCaller carried{.fd = static_cast<uint64_t>(caller.fd()),
                            .role = caller.role(),
                            .arrived_ns = caller.arrived_ns,
                            .unread = connection.unread,
                            .to_skip = connection.to_skip,
                            .unsent = connection.unsent};
      if (&caller == order.caller) {
        carried.upgrade = 1;
        carried.order_id = order.id;
        const Order* const given = caller.order(order.id);
        carried.order_by = given == nullptr ? std::string_view() : given->by;
      }
      places_.emplace(&caller, places_.size());
      record.add(carried);
    }
  }
}

Status Callers::keep_over_exec(bool keep) {
  Status kept = listener_.keep_over_exec(keep);
  for (const auto& [caller, place] : places_) {
    if (kept) {
      kept = penstock::queue::keep_over_exec(caller->fd(), keep);
    }
  }
  return kept;
}

Status Callers::take_over(const CarriedCaller& carried) {
  auto fd = take_descriptor(carried.fd);
  if (!fd) {
    return fd.error();
  }
  const Credentials peer = roles_.peer_of(fd->get());
  CallerSession& caller =
      newcomers_.emplace_back(connections_, *std::move(fd), handlers_, *this, peer);
  caller.self = std::prev(newcomers_.end());
  strangers_ += peer.roles == 0 ? 1 : 0;
  if (Status opened = caller.open(); !opened) {
    return opened;
  }
  taken_.push_back(&caller);
  caller.take_over(carried);
  if (caller.greeted()) {
    strangers_ -= peer.roles == 0 ? 1 : 0;
    on_greeted(caller);
  }
  caller.set_roles(peer.roles);  // `access:` may be another by now
  if (carried.upgrade != 0) {
    upgrade_order_ = {&caller, carried.order_id};
  }
  return Ok{};
}

void CallerSession::take_over(const CarriedCaller& caller) {
  Connection::take_over(caller.unread, caller.to_skip, caller.unsent);
  role_ = caller.role;
  if (caller.upgrade != 0) {
    orders_.add({.id = caller.order_id,
                 .by = std::string(caller.order_by),
                 .deed = "upgrade",
                 .object = {}});
  }
  if (has_role(wire::Role::kEdge)) {
    handlers_.dispatcher.edges().joined(*this, false, 0);  // as hosts share nothing
  }
}

}  // namespace penstock::queue
