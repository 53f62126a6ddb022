// Address: where a server is.
#pragma once

#include <string>

namespace penstock::redis {

struct Address {
  std::string path;  // of a Unix socket; empty: TCP
  std::string host;  // a number, or a name, which the loop looks up
  int port = 0;

  friend bool operator==(const Address&, const Address&) = default;
};

// As penstock_zone names it: "10.0.0.5:6379", "[::1]:6379", "unix:/run/redis.sock".
std::string text_of(const Address& address);
bool is_number(const std::string& host) noexcept;

}  // namespace penstock::redis
