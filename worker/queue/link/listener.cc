#include "worker/queue/link/listener.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "shared/base/unix_socket.h"

namespace penstock::queue {
namespace {

constexpr int kBacklog = 4096;  // the kernel lowers it to net.core.somaxconn

Error failed(const std::string& what) { return Error{what + ": " + std::strerror(errno)}; }

Result<Fd> lock(const std::string& path) {
  const std::string lock_path = path + ".lock";
  Fd fd(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) {
    return failed(lock_path +
                  " cannot be opened; the folder of `socket` must exist and be "
                  "writable for penstockd");
  }
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return Error{"another penstockd is running on " + path +
                 "; stop it first, or give this one another `socket`"};
  }
  return fd;
}

// Whatever socket lies there has no owner, since we hold the lock.
Status remove_stale(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) {
    return Ok{};
  }
  if (!S_ISSOCK(info.st_mode)) {
    return Error{path + " exists and is not a socket; move it away, or change `socket`"};
  }
  if (::unlink(path.c_str()) != 0) {
    return failed(path + " is stale and cannot be removed");
  }
  return Ok{};
}

std::string name_of(const Fd& socket) {
  sockaddr_un address{};
  socklen_t size = sizeof address - 1;
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size);
  return address.sun_path;
}

Result<Fd> bind_and_listen(const std::string& path, const Access& access) {
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const sockaddr_un address = *unix_address(path);  // its length was looked at before
  const mode_t umask_before = ::umask(0777);        // nobody connects before grant()
  const int bound = ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  ::umask(umask_before);
  if (bound != 0) {
    return failed("cannot listen on " + path);
  }
  if (Status granted = grant(path, access); !granted) {
    return granted.error();
  }
  if (::listen(fd.get(), kBacklog) != 0) {
    return failed("cannot listen on " + path);
  }
  return fd;
}

}  // namespace

Status grant(const std::string& path, const Access& access) {
  if (!access.group.empty()) {
    const group* const entry = ::getgrnam(access.group.c_str());
    if (entry == nullptr) {
      return Error{"there is no group '" + access.group + "'; correct `socket_group`"};
    }
    if (::chown(path.c_str(), static_cast<uid_t>(-1), entry->gr_gid) != 0) {
      return failed(path + " cannot be given to group '" + access.group + "'");
    }
  }
  if (::chmod(path.c_str(), access.mode) != 0) {
    return failed("the mode of " + path + " cannot be set");
  }
  return Ok{};
}

Result<Listener> Listener::open(const std::string& path, const Access& access) {
  auto listener = claim(path);
  if (!listener) {
    return listener.error();
  }
  if (Status listens = listener->listen(access); !listens) {
    return listens.error();
  }
  return *std::move(listener);
}

Result<Listener> Listener::claim(const std::string& path, Fd held) {
  auto locked = lock(path);
  if (!locked) {
    return locked.error();
  }
  if (held.valid()) {
    if (const std::string name = name_of(held); name != path) {
      return Error{"the socket that was handed over is " + name + ", and `socket` is " + path +
                   "; write the same path in both"};
    }
    Listener listener(path, *std::move(locked));
    listener.socket_ = std::move(held);
    listener.held_ = true;
    return listener;
  }
  if (Status removed = remove_stale(path); !removed) {
    return removed.error();
  }
  return Listener(path, *std::move(locked));
}

CarriedListener Listener::hand_over() const {
  return {.path = path_,
          .fd = static_cast<uint64_t>(socket_.get()),
          .lock_fd = static_cast<uint64_t>(lock_.get()),
          .held = held_ ? 1U : 0U};
}

Status Listener::keep_over_exec(bool keep) const {
  Status kept = penstock::queue::keep_over_exec(socket_.get(), keep);
  return kept ? penstock::queue::keep_over_exec(lock_.get(), keep) : kept;
}

Result<Listener> Listener::take_over(const CarriedListener& listener) {
  auto lock = take_descriptor(listener.lock_fd);
  auto socket = take_descriptor(listener.fd);
  if (!lock || !socket) {
    return lock ? socket.error() : lock.error();
  }
  Listener taken(std::string(listener.path), *std::move(lock));
  taken.socket_ = *std::move(socket);
  taken.held_ = listener.held != 0;
  taken.listens_ = true;
  return taken;
}

Status Listener::listen(const Access& access) {
  if (held_ || listens_) {
    return Ok{};
  }
  auto socket = bind_and_listen(path_, access);
  if (!socket) {
    return socket.error();
  }
  socket_ = *std::move(socket);
  return Ok{};
}

Listener::~Listener() {
  if (socket_.valid() && !held_) {
    ::unlink(path_.c_str());
  }
}

Listener::Outcome Listener::accept(Fd& out) {
  out.reset(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (out.valid()) {
    return Outcome::kAccepted;
  }
  const bool out_of_something =
      errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
  return out_of_something ? Outcome::kExhausted : Outcome::kEmpty;
}

}  // namespace penstock::queue
