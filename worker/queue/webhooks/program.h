// Program: an operator's program, run once: a text to read, variables, an exit status.
//
// It is started without a shell, reads the text from its standard input, a file that ends, and
// writes to us: the first bytes are kept for the log, the rest is read and dropped. All of its
// process group is killed with it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/event_loop.h"
#include "shared/base/fd.h"
#include "worker/queue/process/child.h"

namespace penstock::queue {

class Program final : public EventLoop::Handler {
 public:
  static constexpr size_t kMostSaid = 2048;

  // `loop` outlives it. The Error says why it did not start.
  static Result<std::unique_ptr<Program>> start(EventLoop& loop,
                                                const std::vector<std::string>& command,
                                                const std::vector<std::string>& environment,
                                                std::string_view input);
  ~Program() override;  // it is killed
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void kill() const { child_.kill(); }
  // Whether it has ended since the last call.
  bool reap();
  // REQUIRES of these: it was reaped.
  bool succeeded() const { return child_.succeeded(); }
  std::string end() const { return child_.end(); }
  // The first of what it said.
  const std::string& said() const { return said_; }

  void on_events(uint32_t) override { read(); }

 private:
  Program(EventLoop& loop, Spawned spawned);
  void read();
  void close();

  EventLoop& loop_;
  Child child_;
  Fd output_;
  std::string said_;
};

}  // namespace penstock::queue
