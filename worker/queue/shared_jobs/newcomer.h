// Newcomer: a job that comes into a shared queue, with all that it refers to.
#pragma once

#include <string>
#include <string_view>

#include "worker/queue/shared_order/shared_order.h"

namespace penstock::queue {

struct Newcomer {
  std::string id, lane, body, key, key_is, instead_of, listed;
  std::string home;       // that is told of its end; empty: none
  SharedOrder::Job job;   // all but these
  bool promised = false;  // a 202 is said of it

  // As it is added. Good while this is.
  SharedOrder::Job as_job() const;
};

// What is kept of one that is promised now, to add it again.
std::string encode(const Newcomer& newcomer, std::string_view queue);
// False: it is no such thing, or not whole.
bool decode(std::string_view bytes, Newcomer& newcomer, std::string& queue);

}  // namespace penstock::queue
