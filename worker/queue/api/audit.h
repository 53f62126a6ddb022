// Audit: a line in the log for each order of a tool: who gave it, what it was to do, and what came
// of it, also where it was refused.
//
//     … [info] order uid=0 pid=4711 by="alice at 192.0.2.7" deed=pause object=/queues/default
//       outcome=done status=200
//
// `by`: whom the console's location knew, where the order came by an Nginx's. `outcome`: done;
// refused (4xx); failed (5xx); unknown, as whoever gave it left before the answer. An order counts
// as answered when its answer is written to its connection, whatever part of penstockd made that.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/log_bound.h"
#include "shared/wire/messages.h"
#include "worker/queue/link/roles.h"

namespace penstock::queue {

// Whether it is to change something.
inline bool is_order(const wire::Ask& ask) { return ask.method != "GET" && ask.method != "HEAD"; }

struct Order {
  uint64_t id = 0;     // on its connection
  std::string by;      // empty: nobody else than who is connected
  std::string deed;    // "pause", "requeue"; by its method, where the path does not say
  std::string object;  // "/queues/default", with its query
};
Order order_of(uint64_t id, const wire::Ask& ask);

class Audit {
 public:
  static constexpr double kRefusedPerSecond = 5;  // of those who may give no orders

  // `status`: of the answer; 0: there was none.
  void told(const Credentials& who, const Order& order, uint64_t status, int64_t now_ns);

 private:
  LogBound refused_{kRefusedPerSecond, kRefusedPerSecond};
};

// The orders of one connection that are still to be answered.
class OpenOrders {
 public:
  bool empty() const { return open_.empty(); }
  void add(Order order) { open_.push_back(std::move(order)); }
  // nullptr: there is none of that id.
  const Order* find(uint64_t id) const {
    for (const Order& order : open_) {
      if (order.id == id) {
        return &order;
      }
    }
    return nullptr;
  }
  // Whole frames are on their way to who gave them. Calls told(order, status) for those that these
  // answer.
  template <typename F>
  void answered(std::string_view frames, F&& told) {
    for (uint64_t id = 0, status = 0; !empty() && next_answer(frames, id, status);) {
      for (size_t i = 0; i < open_.size(); ++i) {
        if (open_[i].id == id) {
          told(open_[i], status);
          open_.erase(open_.begin() + static_cast<ptrdiff_t>(i));
          break;
        }
      }
    }
  }
  // They will not be.
  template <typename F>
  void left(F&& told) {
    for (const Order& order : open_) {
      told(order, 0);
    }
    open_.clear();
  }

 private:
  // Takes frames off the front to the next that is an answer's beginning: HEAD or FAILED.
  static bool next_answer(std::string_view& frames, uint64_t& id, uint64_t& status);

  std::vector<Order> open_;  // few
};

}  // namespace penstock::queue
