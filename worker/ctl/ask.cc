#include "worker/ctl/ask.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstring>

#include "shared/base/fd.h"
#include "shared/wire/messages.h"

namespace penstock::ctl {
namespace {

constexpr timeval kPatience{5, 0};

Result<Fd> connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Error{path + " is too long for a socket's path"};
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof kPatience);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const bool absent = errno == ENOENT || errno == ECONNREFUSED;
    return Error{"cannot reach penstockd on " + path + ": " + std::strerror(errno) +
                 (absent ? "; is it running?" : "")};
  }
  return fd;
}

Error no_answer(const std::string& socket) {
  return Error{"penstockd on " + socket + " gave no answer: " +
               (errno == EAGAIN ? "it is too busy, or stuck" : std::strerror(errno))};
}

}  // namespace

Result<std::string> ask_status(const std::string& socket) {
  auto fd = connect_to(socket);
  if (!fd) {
    return fd.error();
  }
  std::string question;
  const auto role = static_cast<uint64_t>(wire::Role::kTool);
  wire::append(question, 0, wire::Hello{.version = wire::kVersion, .role = role});
  wire::append_empty(question, wire::FrameType::kStatus, 1);
  if (::send(fd->get(), question.data(), question.size(), MSG_NOSIGNAL) < 0) {
    return no_answer(socket);
  }
  std::string buffer;
  for (;;) {
    const wire::Decoded decoded = wire::decode(buffer, {});
    wire::StatusReport report;
    wire::Goodbye goodbye;
    if (decoded.kind == wire::Decoded::kBad) {
      return Error{"what listens on " + socket + " is no penstockd: " + decoded.error};
    }
    if (decoded.kind == wire::Decoded::kFrame &&
        decoded.frame.header.type == wire::FrameType::kStatus &&
        wire::parse(decoded.frame.payload, report) == nullptr) {
      return std::string(report.json);
    }
    if (decoded.kind == wire::Decoded::kFrame) {
      wire::parse(decoded.frame.payload, goodbye);
      return Error{"penstockd on " + socket + " hung up: " + std::string(goodbye.message)};
    }
    char piece[16384];
    errno = 0;
    const ssize_t size = ::recv(fd->get(), piece, sizeof piece, 0);
    if (size <= 0) {
      return no_answer(socket);
    }
    buffer.append(piece, static_cast<size_t>(size));
  }
}

Result<std::string> socket_of(const std::string& config_path) {
  try {  // yaml-cpp speaks by exceptions
    const YAML::Node root = YAML::LoadFile(config_path);
    if (root.IsMap() && root["socket"].IsDefined() && root["socket"].IsScalar()) {
      return root["socket"].Scalar();
    }
    return Error{config_path + " has no key 'socket'"};
  } catch (const YAML::Exception& exception) {
    return Error{config_path + ": " + exception.what()};
  }
}

}  // namespace penstock::ctl
