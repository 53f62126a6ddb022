// Places: which server has a key. Redis Cluster's slots are the form for all: one Redis has all of
// them, and so has the master that a Sentinel names.
//
// Slots: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
#pragma once

#include <hiredis/hiredis.h>

#include <optional>
#include <string_view>
#include <vector>

#include "shared/redis/address.h"

namespace penstock::redis {

constexpr unsigned kSlots = 16384;

// CRC16 of the key, or of what is between its first braces.
unsigned slot_of(std::string_view key) noexcept;

struct Places {
  struct Range {
    unsigned first = 0, last = 0;  // slots, both included
    size_t server = 0;
  };
  std::vector<Address> servers;
  std::vector<Range> ranges;

  static Places all_at(Address server);
};

// The answer to SENTINEL GET-MASTER-ADDR-BY-NAME. Nothing: it is none.
std::optional<Places> read_master(const redisReply& answer);
// The answer to CLUSTER SLOTS, by the server at `asked`. Nothing: it is none, or names no slots.
std::optional<Places> read_slots(const redisReply& answer, const Address& asked);

// "MOVED 3999 127.0.0.1:6381", "ASK 3999 127.0.0.1:6381": what a server says of a key that it has
// not, or no more.
struct Moved {
  bool for_now = false;  // ASK
  unsigned slot = 0;
  Address server;
};
std::optional<Moved> read_moved(std::string_view error, const Address& asked);

}  // namespace penstock::redis
