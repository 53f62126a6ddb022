// The address of a Unix socket (unix(7)).
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <optional>
#include <string_view>

namespace penstock {

// The address of the socket at this path; nothing if the path is too long for one.
inline std::optional<sockaddr_un> unix_address(std::string_view path) noexcept {
  sockaddr_un address{};
  if (path.size() >= sizeof address.sun_path) {
    return std::nullopt;
  }
  address.sun_family = AF_UNIX;
  std::copy(path.begin(), path.end(), address.sun_path);
  return address;
}

}  // namespace penstock
