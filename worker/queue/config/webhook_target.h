// Where webhooks may go: anywhere on the public internet, and where the operator allows.
//
// A caller chooses the URL, and penstockd sits inside the operator's network: unchecked, callers
// could reach what only the inside can (server-side request forgery). So an address is judged when
// the connection is made, after the name was resolved: no later answer of a name server's counts.
//
// These are refused unless allowed: addresses that IANA's special-purpose registries (RFC 6890)
// call not globally reachable, multicast, IPv4 addresses carried within IPv6 ones, addresses in
// public space by which cloud platforms serve their machines, and the addresses of this machine's
// own interfaces. An address that a router translates to this machine is not known here, and cannot
// be refused.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/result.h"

namespace penstock::queue {

// The host of a URL, in lower case; empty when that is none.
std::string host_of(const std::string& url);
// The "host:port" that is connected to for a URL.
std::string address_of(const std::string& url);

class WebhookTargets {
 public:
  static constexpr size_t kMaxUrlBytes = 2048;

  WebhookTargets() = default;
  // Reads `webhooks.allow`: addresses, blocks ("10.0.0.0/8", "fd00::/8") and names of hosts. The
  // Error names what is none of these.
  static Result<WebhookTargets> create(const std::vector<std::string>& allow);

  // Whether a callback may be asked for: an http or https URL without credentials, and not of an
  // address that would be refused. What its name resolves to is seen later.
  Status check(std::string_view url) const;
  // Whether a connection to this address, given in either form, may be made for that host.
  bool allows(std::string_view host, const sockaddr& address) const;
  bool allows(std::string_view host, const char* address) const;

 private:
  using Address = std::array<uint8_t, 16>;  // IPv4 as ::ffff:a.b.c.d
  struct Block {
    Address address{};
    int bits = 128;
  };
  static bool read_address(const sockaddr& from, Address& address);
  static bool read_block(const std::string& text, Block& block);
  static bool contains(const Block& block, const Address& address);
  static bool is_special(const Address& address);
  static bool is_own(const Address& address);
  bool allowed(const Address& address) const;
  bool allowed(std::string_view host) const;

  std::vector<Block> blocks_;
  std::vector<std::string> hosts_;  // in lower case
};

}  // namespace penstock::queue
