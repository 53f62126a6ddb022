// Caller: the connection of a peer that asks (an Nginx worker, a tool, the edge's own line): who is
// at the other end, and which of its ids are in use.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "shared/wire/messages.h"
#include "worker/queue/jobs/waiter.h"
#include "worker/queue/link/connection.h"
#include "worker/queue/link/roles.h"
#include "worker/queue/store/usage.h"

namespace penstock::queue {

class Caller : public Connection {
 public:
  Caller(ConnectionLoop& connections, Fd fd, size_t pause_bytes, const Credentials& peer)
      : Connection(connections, std::move(fd), pause_bytes), peer_(peer) {}

  bool is_tool() const { return has_role(wire::Role::kTool); }
  const Credentials& peer() const { return peer_; }

  // Somebody waits under `waiter.id` from now on.
  void remember(Waiter& waiter) {
    requests_.push_back({waiter.id, &waiter});
    take_counted(waiter.id);  // of another request, which had this id before
  }
  // The request is over: its id is free again.
  void forget(const Waiter& waiter) {
    for (InFlight& each : requests_) {
      if (each.waiter == &waiter) {
        each = requests_.back();
        requests_.pop_back();
        return;
      }
    }
  }

  // As the next penstockd takes it over.
  uint64_t role() const { return role_; }

  // What the ledger was told of a request whose end the peer has yet to hear of: the last one's.
  struct Counted {
    uint64_t id = 0;
    UsageKey key;
    UsageCounts counts;
  };
  void note_counted(uint64_t id, const UsageKey& key, const UsageCounts& counts) {
    counted_ = counted_ == nullptr ? std::make_unique<Counted>() : std::move(counted_);
    *counted_ = {id, key, counts};
  }
  // nullptr: of that request nothing is known.
  std::unique_ptr<Counted> take_counted(uint64_t id) {
    return counted_ != nullptr && counted_->id == id ? std::move(counted_) : nullptr;
  }

 protected:
  bool has_role(wire::Role role) const { return role_ == static_cast<uint64_t>(role); }

  Credentials peer_;
  uint64_t role_ = 0;  // wire::Role; 0 before HELLO

  struct InFlight {
    uint64_t id;
    Waiter* waiter;
  };
  const std::vector<InFlight>& requests() const { return requests_; }
  // nullptr: nobody waits under this id.
  Waiter* find(uint64_t id) const {
    for (const InFlight& each : requests_) {
      if (each.id == id) {
        return each.waiter;
      }
    }
    return nullptr;
  }

 private:
  std::vector<InFlight> requests_;  // few, usually one
  std::unique_ptr<Counted> counted_;
};

}  // namespace penstock::queue
