#include "worker/ctl/ask.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>

#include "shared/base/unix_socket.h"
#include "worker/queue/config/load_config.h"

namespace penstock::ctl {
namespace {

namespace fs = std::filesystem;

constexpr timeval kPatience{5, 0};
constexpr char kPackageSocket[] = "/run/penstock/penstock.sock";

Result<Fd> connect_to(const std::string& path) {
  const auto address = unix_address(path);
  if (!address) {
    return Error{path + " is too long for a socket's path"};
  }
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof kPatience);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    const bool absent = errno == ENOENT || errno == ECONNREFUSED;
    return Error{"cannot reach penstockd on " + path + ": " + std::strerror(errno) +
                 (absent ? "; is it running?" : "")};
  }
  return fd;
}

constexpr bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || c == '.' || c == ',';
}

void append_encoded(std::string& out, std::string_view text) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  for (const char c : text) {
    if (is_plain(c)) {
      out += c;
    } else {
      const auto byte = static_cast<uint8_t>(c);
      out.append({'%', kDigits[byte >> 4], kDigits[byte & 15]});
    }
  }
}

// The sockets of what `make run` has started here or where this program was built.
std::set<std::string> sockets_of_runs() {
  std::error_code error;
  const fs::path here = fs::current_path(error);
  const fs::path built = fs::read_symlink("/proc/self/exe", error).parent_path().parent_path();
  std::set<std::string> sockets;
  for (const fs::path& folder : {here, here.parent_path(), built}) {
    for (const auto& run : fs::directory_iterator(folder / "run", error)) {
      const auto socket = queue::load_socket(run.path() / "penstock.yaml");
      if (socket && connect_to(*socket)) {
        sockets.insert(*socket);
      }
    }
  }
  return sockets;
}

// The package's, or that of the only `make run`.
Result<std::string> find_socket() {
  if (::access(kPackageSocket, F_OK) == 0) {
    return std::string(kPackageSocket);
  }
  const std::set<std::string> runs = sockets_of_runs();
  if (runs.size() < 2) {
    return runs.empty() ? kPackageSocket : *runs.begin();
  }
  std::string all;
  for (const std::string& each : runs) {
    all += "\n  -s " + each;
  }
  return Error{"several penstockd run here; say which:" + all};
}

}  // namespace

Result<std::string> socket_of(const Arguments& arguments) {
  if (arguments.has("socket") && arguments.has("config")) {
    return Error{"give -s or -c, not both"};
  }
  if (arguments.has("config")) {
    return queue::load_socket(arguments.value("config"));
  }
  const char* const environment = std::getenv("PENSTOCK_SOCKET");
  const bool set = environment != nullptr && *environment != '\0';
  return set || arguments.has("socket") ? arguments.value("socket", set ? environment : "")
                                        : find_socket();
}

std::string query_of(
    std::initializer_list<std::pair<std::string_view, std::string_view>> parameters) {
  std::string query;
  for (const auto& [name, value] : parameters) {
    if (!value.empty()) {
      query.append(query.empty() ? "" : "&").append(name).append("=");
      append_encoded(query, value);
    }
  }
  return query;
}

Result<Penstockd> Penstockd::connect(const std::string& socket) {
  auto fd = connect_to(socket);
  if (!fd) {
    return fd.error();
  }
  Penstockd connection(socket, *std::move(fd));
  std::string hello;
  const auto role = static_cast<uint64_t>(wire::Role::kTool);
  wire::append(hello, 0, wire::Hello{.version = wire::kVersion, .role = role});
  if (const Status sent = connection.send(hello); !sent) {
    return sent.error();
  }
  return connection;
}

Error Penstockd::no_answer() const {
  return Error{"penstockd on " + socket_ + " gave no answer: " +
               (errno == EAGAIN ? "it is too busy, or stuck"
                : errno == 0    ? "it hung up"
                                : std::strerror(errno))};
}

void Penstockd::wait_up_to(int seconds) {
  const timeval patience{.tv_sec = seconds, .tv_usec = 0};
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
}

Status Penstockd::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t size = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (size < 0 && errno == EPIPE) {
      return Ok{};  // it has hung up, and what it said last is still to be read
    }
    if (size < 0 && errno != EINTR) {
      return no_answer();
    }
    bytes.remove_prefix(size < 0 ? 0 : static_cast<size_t>(size));
  }
  return Ok{};
}

Result<wire::Frame> Penstockd::receive() {
  buffer_.erase(0, std::exchange(consumed_, 0));
  for (;;) {
    const wire::Decoded decoded = wire::decode(buffer_, {});
    if (decoded.kind == wire::Decoded::kBad) {
      return Error{"what listens on " + socket_ + " is no penstockd: " + decoded.error};
    }
    if (decoded.kind == wire::Decoded::kFrame) {
      consumed_ = decoded.consumed;
      if (decoded.frame.header.type != wire::FrameType::kGoodbye) {
        return decoded.frame;
      }
      wire::Goodbye goodbye;
      wire::parse(decoded.frame.payload, goodbye);
      return Error{"penstockd on " + socket_ + " hung up: " + std::string(goodbye.message)};
    }
    char piece[16384];
    errno = 0;
    const ssize_t size = ::recv(fd_.get(), piece, sizeof piece, 0);
    if (size < 0 && errno == EINTR) {
      continue;
    }
    if (size <= 0) {
      silent_ = true;
      return no_answer();
    }
    buffer_.append(piece, static_cast<size_t>(size));
  }
}

Result<std::string> Penstockd::status() {
  std::string question;
  wire::append_empty(question, wire::FrameType::kStatus, ++last_id_);
  if (const Status sent = send(question); !sent) {
    return sent.error();
  }
  const auto frame = receive();
  wire::StatusReport report;
  if (!frame) {
    return frame.error();
  }
  if (frame->header.type != wire::FrameType::kStatus ||
      wire::parse(frame->payload, report) != nullptr) {
    return Error{"penstockd on " + socket_ + " is of another version: STATUS was not understood"};
  }
  return std::string(report.json);
}

Result<std::string> Penstockd::ask(std::string_view method, std::string_view path,
                                   std::string_view query) {
  refused_ = false;
  std::string question;
  wire::append(question, ++last_id_,
               wire::Ask{.method = method, .path = path, .query = query, .jobs_path = "/jobs"});
  if (const Status sent = send(question); !sent) {
    return sent.error();
  }
  auto answer = hear_answer();
  if (!answer && silent_ && method != "GET") {
    return Error{answer.error().message +
                 ". It has the order, which may yet be carried out: `penstockctl status`, `jobs` "
                 "and `dead` tell"};
  }
  return answer;
}

Result<std::string> Penstockd::hear_answer() {
  std::string body;
  for (;;) {
    const auto frame = receive();
    if (!frame) {
      return frame.error();
    }
    if (frame->header.id != last_id_) {
      continue;  // the rest of a question that was given up
    }
    if (frame->header.type == wire::FrameType::kDone) {
      return body;
    }
    if (wire::Failed failed; frame->header.type == wire::FrameType::kFailed) {
      refused_ = true;
      wire::parse(frame->payload, failed);
      return Error{std::string(failed.message)};
    }
    if (frame->header.type == wire::FrameType::kChunk) {
      body.append(frame->payload);
    }
    if (body.size() > kMaxAnswerBytes) {
      return Error{"penstockd's answer is longer than " + std::to_string(kMaxAnswerBytes) +
                   " bytes"};
    }
  }
}

}  // namespace penstock::ctl
