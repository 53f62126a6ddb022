// Listener: the Unix socket that callers connect to, and the proof that it is ours alone.
//
// A lock on SOCKET.lock says which penstockd owns the path. The lock goes with its process, however
// that dies. So a socket file without a living owner is recognised and replaced. A socket that a
// service manager holds stays its own: file, mode and group are left as they are.
#pragma once

#include <cstdint>
#include <string>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "worker/queue/handover/record.h"

namespace penstock::queue {

// Who may open a file we make: a mode and, if not empty, a group's name.
struct Access {
  uint32_t mode = 0660;
  std::string group;
};
// Sets both on a file. The error names the file and what would be right.
Status grant(const std::string& path, const Access& access);

class Listener {
 public:
  // claim() and listen().
  static Result<Listener> open(const std::string& path, const Access& access);
  // The path is ours; nobody can connect yet. `held`: a service manager's socket, which listens.
  static Result<Listener> claim(const std::string& path, Fd held = {});
  Status listen(const Access& access);
  Listener(Listener&&) = default;
  Listener& operator=(Listener&&) = delete;
  ~Listener();  // removes the socket file

  // As the next penstockd takes it over: the socket listens all the while.
  CarriedListener hand_over() const;
  Status keep_over_exec(bool keep) const;
  static Result<Listener> take_over(const CarriedListener& listener);

  int fd() const { return socket_.get(); }
  const std::string& path() const { return path_; }

  // The next connection, non-blocking. An invalid Fd: none now (kEmpty), or none can be had for a
  // while because this process or the host is out of something (kExhausted).
  enum class Outcome : uint8_t { kAccepted, kEmpty, kExhausted };
  Outcome accept(Fd& out);

 private:
  Listener(std::string path, Fd lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;
  Fd lock_;
  Fd socket_;
  bool held_ = false;     // by a service manager
  bool listens_ = false;  // for an earlier penstockd already
};

}  // namespace penstock::queue
