// EdgeLines: the edge's own lines, over which it hears of promised jobs that hold something there.
//
// Each Nginx keeps one. There are two during a reload, while one takes the other's place. The line
// that came first is told of all: HOLD for each job that is alive, OVER when it has ended. When
// that line goes, or does not read, the next is told of all anew.
//
// OVER is repeated to the next line until SETTLED says that the edge has seen to it. So it is told
// at least once, and the edge settles no receipt twice. The latest kMaxPending are kept for that.
// What is lost beyond them lapses at the edge by itself, or is told after the next start, as the
// store keeps it, too.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "shared/wire/messages.h"
#include "worker/queue/link/connection.h"

namespace penstock::queue {

class EdgeLines {
 public:
  static constexpr size_t kMaxPending = 10'000;
  static constexpr size_t kMaxUnsent = 64U << 20;  // bytes, beside what it was told first
  using HoldAll = std::function<void(const std::function<void(uint64_t, std::string_view)>&)>;

  // `hold_all` names every job that holds something: its number and its receipt.
  explicit EdgeLines(HoldAll hold_all) : hold_all_(std::move(hold_all)) {}

  void joined(Connection& line) {
    lines_.push_back(&line);
    if (lines_.size() == 1) {
      brief();
    }
  }
  void left(Connection& line) {
    const bool was_told = !lines_.empty() && lines_.front() == &line;
    std::erase(lines_, &line);
    if (was_told && !lines_.empty()) {
      brief();
    }
  }
  size_t size() const { return lines_.size(); }

  void hold(uint64_t number, std::string_view receipt) {
    if (Connection* const line = listening(); line != nullptr) {
      wire::append(line->out(), number, wire::Hold{receipt});
    }
  }
  void over(uint64_t number, const wire::Over& over) {
    if (pending_.size() == kMaxPending && !pending_.contains(number)) {
      pending_.erase(pending_.begin());
    }
    std::string& frame = pending_[number];
    frame.clear();
    wire::append(frame, number, over);
    if (Connection* const line = listening(); line != nullptr) {
      line->out().append(frame);
    }
  }
  // True: it had not been said before.
  bool settled(uint64_t number) { return pending_.erase(number) > 0; }
  size_t pending() const { return pending_.size(); }

 private:
  // The first line that reads; nullptr: there is none.
  Connection* listening() {
    while (!lines_.empty() && lines_.front()->clogged() &&
           lines_.front()->unsent() > most_unsent_) {
      Connection& stuck = *lines_.front();
      left(stuck);
      stuck.close();
    }
    return lines_.empty() ? nullptr : lines_.front();
  }
  void brief() {
    Connection& line = *lines_.front();
    hold_all_([&](uint64_t number, std::string_view receipt) {
      wire::append(line.out(), number, wire::Hold{receipt});
    });
    for (const auto& [number, frame] : pending_) {
      line.out().append(frame);
    }
    most_unsent_ = line.unsent() + kMaxUnsent;
  }

  HoldAll hold_all_;
  std::vector<Connection*> lines_;
  size_t most_unsent_ = 0;                   // of the first
  std::map<uint64_t, std::string> pending_;  // OVER, by number: the oldest job first
};

}  // namespace penstock::queue
