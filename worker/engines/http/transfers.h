// Transfers: HTTP requests under way, by libcurl's multi interface on an epoll descriptor of its
// own. There is no thread, and nothing blocks: libcurl resolves names on a thread of its own.
//
// Some things libcurl does by itself are prevented here. It sends a POST again when a kept
// connection dies: it is stopped where it is about to. It keeps connections for two minutes: they
// are let go earlier, as servers that keep them for 5 s would close them under our hands. It asks
// before it sends a large body (Expect), reads ~/.netrc and uses the environment's proxies: all
// that is off. Redirects are not followed.
//
// What a request costs is mostly libcurl and the kernel. So a handle keeps its options from one
// transfer to the next, head and body leave in one write, and a kept connection stays registered
// with the epoll descriptor while no transfer uses it. On two EPYC cores libcurl alone takes 27 us
// of CPU a request, and a bare socket 11, of some 130 in Nginx, penstockd, worker and server: a
// client of our own would make all of it 1.15 times as fast.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shared/base/fd.h"
#include "shared/http/curl.h"
#include "worker/engines/http/answer.h"

namespace penstock::http_engine {

// What holds for all requests.
struct ServerOptions {
  std::string socket;  // a Unix socket, or empty
  std::string ca;      // a file, or empty: the system's
  int64_t connect_ns = 0;
  uint32_t connections = 1;  // that may be kept
};

class Transfers {
 public:
  // Hears of one request. Must not call Transfers.
  class Receiver {
   public:
    virtual ~Receiver() = default;
    // A line of the head, or of trailers. False: the transfer is stopped.
    virtual bool on_header(std::string_view line) = 0;
    // Some of the body, decoded. False: likewise.
    virtual bool on_body(std::string_view bytes) = 0;
  };
  struct Request {
    std::string method;
    std::string url;
    std::vector<std::string> headers;    // "Name: value"
    std::vector<std::string_view> body;  // in pieces, which outlive the transfer
    bool fresh = false;                  // on a connection of its own
  };
  struct Ended {
    uint64_t id;
    TransferEnd end;
  };

  explicit Transfers(const ServerOptions& options);
  ~Transfers();
  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;

  // Readable when step() has something to do.
  int fd() const { return epoll_.get(); }
  // REQUIRES: no transfer has that id; `receiver` outlives it.
  void start(uint64_t id, const Request& request, Receiver& receiver);
  // Ends it without another word: its connection is closed, its HTTP/2 stream reset.
  void stop(uint64_t id);
  // Nothing is read while it is paused. The call may tell the receiver of what was there already.
  void pause(uint64_t id, bool paused);

  // Moves all of them, and returns those that have ended.
  std::vector<Ended> step(int64_t now_ns);
  // When step() is to be called, ready or not; INT64_MAX: not by itself.
  int64_t due_ns() const { return due_ns_; }

 private:
  struct Transfer;
  // A socket that the epoll descriptor knows, or is to know.
  struct Watched {
    bool connection = false;         // else it is libcurl's own, to hear of names
    std::optional<uint32_t> events;  // that are waited for; none: it is not registered
    uint64_t id = 0;                 // of the last transfer that asked for it; 0: none uses it
  };
  static int on_socket(CURL* easy, curl_socket_t socket, int what, void* user, void* known);
  static int on_timer(CURLM* multi, long after_ms, void* user);
  static int on_close(void* user, curl_socket_t socket);
  void watch(CURL* easy, int socket, int what);
  void unwatch(int socket);
  void move(int socket, uint32_t events);
  std::unique_ptr<Transfer> take_idle();
  void remove(uint64_t id);

  const ServerOptions options_;
  Fd epoll_;
  std::unordered_map<uint64_t, std::unique_ptr<Transfer>> transfers_;
  std::unordered_map<int, Watched> sockets_;
  std::vector<std::unique_ptr<Transfer>> idle_;
  int64_t due_ns_ = INT64_MAX;
  const curl::Multi multi_;  // tells of its sockets until it has gone
};

}  // namespace penstock::http_engine
