// Successor: the program that is to take penstockd's place, asked first.
//
// It is run as a child, `PROGRAM --takes-over -c FILE`, and says what it is on its standard output,
// a line each, or why it cannot on either, and exits with another status than 0:
//
//     takes-over
//     version 0.2.0
//     formats 1 1             of hand-over records that it reads (handover/record.h)
//     schema 9                the newest of the state's that it knows (store/schema.h)
//     socket /run/penstock/penstockd.sock
//     state /var/lib/penstock
//     shared ...              what penstock.yaml says of queues that hosts share
//
// Nothing here waits: it is told by the loop, by reap() and by advance_to().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/event_loop.h"
#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "worker/queue/process/child.h"

namespace penstock::queue {

// What a program says of itself.
struct SuccessorSays {
  std::string version;
  uint64_t oldest_format = 0;
  uint64_t newest_format = 0;
  uint64_t schema = 0;
  std::string socket, state, shared;
};
// Error: these are not those lines.
Result<SuccessorSays> parse_successor(std::string_view text);
std::string text_of(const SuccessorSays& says);

class Successor final : EventLoop::Handler {
 public:
  static constexpr int64_t kTimeoutNs = 20 * kNsPerSec;
  static constexpr size_t kMostText = 16U << 10;
  using OnSaid = std::function<void(Result<SuccessorSays>)>;

  // `loop` outlives this. `on_said` is called once, and may destroy this.
  static Result<std::unique_ptr<Successor>> ask(EventLoop& loop, const std::string& program,
                                                const std::string& config, int64_t now_ns,
                                                OnSaid on_said);
  ~Successor() override;
  Successor(const Successor&) = delete;
  Successor& operator=(const Successor&) = delete;

  void reap();  // SIGCHLD came
  void advance_to(int64_t now_ns);
  int64_t next_event() const { return ends_ns_; }

 private:
  Successor(EventLoop& loop, Spawned spawned, std::string program, int64_t ends_ns, OnSaid on_said);
  void on_events(uint32_t events) override;
  void read();
  void close();
  void conclude();
  std::string why() const;

  EventLoop& loop_;
  Child child_;
  Fd socket_;
  std::string program_;
  int64_t ends_ns_;
  OnSaid on_said_;
  std::string text_;
  bool late_ = false;
};

}  // namespace penstock::queue
