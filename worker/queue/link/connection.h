// Connection: frames over one non-blocking stream socket. ConnectionLoop: what all connections of a
// loop share, so that an idle connection costs nothing but itself.
//
// Reading goes into one buffer shared by all; only an unfinished frame is kept. Writing is
// gathered: frames are appended to out() and leave with one system call at the end of the loop's
// turn. Buffers that have been sent go back to the ConnectionLoop. So an idle connection holds no
// buffer.
//
// Life: open() ──▶ on_frame()* ──▶ close() or refuse(), by either side ──▶ on_closed(), at the end
// of the turn, when no call into the connection is on the stack: there its owner may destroy it.
// A closed connection accepts and drops everything that is still sent to it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/event_loop.h"
#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "shared/base/shared_bytes.h"
#include "shared/wire/frame.h"

namespace penstock::queue {

class Connection;

class ConnectionLoop {
 public:
  static constexpr size_t kScratchBytes = 256U << 10;
  // How long a frame of out_delayed() may wait for others to leave with it.
  static constexpr int64_t kDelayNs = 5'000'000;

  // `clock` is read once for each event.
  ConnectionLoop(EventLoop& loop, const wire::Limits& limits,
                 std::function<int64_t()> clock = monotonic_ns)
      : loop_(loop), limits_(limits), clock_(std::move(clock)) {}
  ConnectionLoop(const ConnectionLoop&) = delete;
  ConnectionLoop& operator=(const ConnectionLoop&) = delete;

  // Calls on_closed() of connections that were closed. It may still write to others.
  void reap();
  // Writes what was gathered.
  void flush();
  int64_t next_event() const;  // INT64_MAX: nothing is held back or left to reap

  // The time of the event that is being handled, so that one reading of the clock serves it all.
  int64_t now_ns() const { return now_ns_; }
  void set_now(int64_t now_ns) { now_ns_ = now_ns; }
  void read_clock() { now_ns_ = clock_(); }

  // While it holds, nothing is read of any connection; what is to be written goes on.
  void hold();
  void go_on();

  wire::Limits& limits() { return limits_; }
  // The size, when whole, of all frames that have begun and are not whole yet. What was read of
  // them is kept.
  uint64_t unfinished_bytes() const { return unfinished_bytes_; }
  uint64_t protocol_errors() const { return protocol_errors_; }

 private:
  friend class Connection;
  struct Delayed {
    int64_t due_ns;
    Connection* connection;  // nullptr: gone
  };
  static constexpr size_t kMaxSpare = 64;
  static constexpr size_t kMaxSpareBytes = 256U << 10;

  std::string take_spare();
  void give_spare(std::string buffer);

  EventLoop& loop_;
  wire::Limits limits_;
  std::function<int64_t()> clock_;
  int64_t now_ns_ = 0;
  std::string scratch_ = std::string(kScratchBytes, '\0');
  std::vector<Connection*> dirty_;   // have something to send this turn
  std::vector<Connection*> closed_;  // on_closed() is still to be told
  std::deque<Delayed> delayed_;      // oldest first
  bool holds_ = false;
  std::vector<Connection*> held_;  // had something to read, and are not watched meanwhile
  std::vector<std::string> spare_;
  uint64_t unfinished_bytes_ = 0;
  uint64_t protocol_errors_ = 0;
};

class Connection : public EventLoop::Handler {
 public:
  // While more than `pause_bytes` are unsent, nothing is read: so a peer that asks and never reads
  // is not answered without bound.
  Connection(ConnectionLoop& connections, Fd fd, size_t pause_bytes = SIZE_MAX)
      : connections_(connections), fd_(std::move(fd)), pause_bytes_(pause_bytes) {}
  ~Connection() override;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Status open();
  bool closed() const { return !fd_.valid(); }
  int fd() const { return fd_.get(); }
  void close();

  // Where to append frames. They leave at the end of this turn.
  std::string& out();
  // These leave behind what is in out() by now, as they are.
  void send_shared(const SharedBytes& bytes, size_t from);
  // The same, but these may wait up to kDelayNs for more to leave with them.
  std::string& out_delayed();
  size_t unsent() const { return out_.size() - sent_ + shared_bytes_; }
  // The peer reads slower than it is written to.
  bool clogged() const { return (events_ & EPOLLOUT) != 0; }
  // While it is clogged: when it last took anything.
  int64_t moved_ns() const { return moved_ns_; }
  // on_drained() is called once, when at most so many bytes are unsent. REQUIRES: more are.
  void tell_when_drained(size_t bytes) { drained_at_ = bytes; }

  // The peer broke a rule: GOODBYE with the reason, and close.
  void refuse(std::string_view reason);
  // GOODBYE and close, without blame.
  void say_goodbye(std::string_view reason, bool denied = false);

  // Somebody else is to talk to the peer: nothing more is read here, and on_closed() comes at the
  // end of the turn. There release() gives the socket, and what was read and not handled.
  void hand_over();
  struct Released {
    Fd fd;
    std::string unread;
  };
  Released release();
  bool handed_over() const { return handed_over_; }
  // What on_frame() is told of, to keep: a large frame is not copied, and views of it stay valid.
  std::string take(std::string_view bytes);
  // Reads these bytes as if they had just come. REQUIRES: open, and nothing has come yet.
  void read_first(std::string_view bytes);

  // What another process needs to go on with the connection, beside its descriptor.
  struct Carried {
    std::string unread;    // of a frame that is not whole
    uint64_t to_skip = 0;  // bytes still to come
    std::string unsent;
  };
  Carried carry() const;
  // It goes on so. REQUIRES: it was opened just now.
  void take_over(std::string_view unread, uint64_t to_skip, std::string_view unsent);

  void on_events(uint32_t epoll_events) final;

 protected:
  // `bytes` is the whole frame, header included. Valid during the call.
  virtual void on_frame(const wire::Frame& frame, std::string_view bytes) = 0;
  virtual void on_closed() = 0;  // may destroy this
  // A frame is over its limit. True: it has been answered, and its payload is to be passed over;
  // else the peer broke a rule.
  virtual bool on_oversized(const wire::FrameHeader& /*header*/) { return false; }
  // A frame has begun that is longer than what has come of it. False: it has been answered, and is
  // to be passed over.
  virtual bool on_begun(const wire::FrameHeader& /*header*/) { return true; }
  virtual void on_drained() {}
  // These frames were appended to out() since the last call, and are about to be written.
  virtual void on_written(std::string_view /*frames*/) {}
  // Said once for each refuse().
  virtual void on_refused(std::string_view /*reason*/) {}
  ConnectionLoop& connections() { return connections_; }

 private:
  friend class ConnectionLoop;
  void read();
  void read_rest();
  size_t consume(std::string_view buffer);
  bool begin(const wire::Decoded& decoded);
  void expect(size_t bytes);
  size_t skip(std::string_view buffer);
  void mark_dirty();
  void flush();
  void watch();
  void recycle();
  std::string_view next_unsent() const;
  void note_sent(size_t bytes);

  ConnectionLoop& connections_;
  Fd fd_;
  size_t pause_bytes_;
  bool dirty_ = false;
  bool delayed_ = false;  // in connections_.delayed_
  bool handed_over_ = false;
  uint32_t events_ = EPOLLIN;     // that the loop watches for
  std::string partial_;           // the beginning of a frame
  size_t expected_ = 0;           // that it will have in all, once its header is here
  uint64_t to_skip_ = 0;          // bytes of an oversized frame still to come
  std::string* whole_ = nullptr;  // in read_rest(): where what is told lies
  std::string out_;
  size_t sent_ = 0;  // of out_
  size_t told_ = 0;  // of out_, to on_written()
  struct Shared {
    size_t at;  // in out_, before which they go
    SharedBytes bytes;
    size_t sent;
  };
  std::list<Shared> shared_;  // none of most connections, for which a deque has memory
  size_t shared_bytes_ = 0;   // of these, unsent
  int64_t moved_ns_ = 0;
  size_t drained_at_ = SIZE_MAX;  // nobody wants to know
};

}  // namespace penstock::queue
