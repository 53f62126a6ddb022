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
//
// What an edge would settle whoever has charged it (Over::kAnywhere) is said once: an Nginx that
// was started anew, or is another, does not know what the one that heard it has settled. Only that
// one, should it not have heard, settles of it later what it charged itself.
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

  // `settles`, `nginx`: as its HELLO said.
  void joined(Connection& line, bool settles, uint64_t nginx) {
    lines_.push_back({&line, settles, nginx});
    if (lines_.size() == 1) {
      brief();
    }
  }
  void left(Connection& line) {
    const bool was_told = !lines_.empty() && lines_.front().line == &line;
    std::erase_if(lines_, [&](const Line& each) { return each.line == &line; });
    if (was_told && !lines_.empty()) {
      brief();
    }
  }
  size_t size() const { return lines_.size(); }
  // Whether what others have charged can be settled by the edge that is told, and all that it was
  // told of that is.
  bool settles_others() const {
    return !lines_.empty() && lines_.front().settles &&
           pending_.lower_bound(wire::Over::kOfOthers) == pending_.end();
  }

  void hold(uint64_t number, std::string_view receipt) {
    if (Connection* const line = listening(); line != nullptr) {
      wire::append(line->out(), number, wire::Hold{receipt});
    }
  }
  void over(uint64_t number, const wire::Over& over) {
    if (pending_.size() == kMaxPending && !pending_.contains(number)) {
      pending_.erase(pending_.begin());
    }
    Pending& pending = pending_[number];
    pending.frame.clear();
    wire::append(pending.frame, number, over);
    pending.was_said = false;
    if (listening() != nullptr) {
      say(number, pending);
    }
  }
  // True: it had not been said before.
  bool settled(uint64_t number) { return pending_.erase(number) > 0; }
  size_t pending() const { return pending_.size(); }

 private:
  struct Line {
    Connection* line;
    bool settles;
    uint64_t nginx;
  };
  struct Pending {
    std::string frame;
    bool was_said = false;  // of kAnywhere alone
    uint64_t nginx = 0;     // to which, then
  };

  // The first line that reads; nullptr: there is none.
  Connection* listening() {
    while (!lines_.empty() && lines_.front().line->clogged() &&
           lines_.front().line->unsent() > most_unsent_) {
      Connection& stuck = *lines_.front().line;
      left(stuck);
      stuck.close();
    }
    return lines_.empty() ? nullptr : lines_.front().line;
  }
  void brief() {
    Connection& line = *lines_.front().line;
    hold_all_([&](uint64_t number, std::string_view receipt) {
      wire::append(line.out(), number, wire::Hold{receipt});
    });
    std::erase_if(pending_, [](const auto& each) {
      return each.first >= wire::Over::kOfOthers && each.second.was_said;
    });
    for (auto& [number, pending] : pending_) {
      say(number, pending);
    }
    most_unsent_ = line.unsent() + kMaxUnsent;
  }
  // To the first line.
  void say(uint64_t number, Pending& pending) {
    std::string& out = lines_.front().line->out();
    const uint64_t nginx = lines_.front().nginx;
    wire::Over over;
    wire::parse(std::string_view(pending.frame).substr(wire::kHeaderBytes), over);
    if (over.sealed != wire::Over::kAnywhere) {
      out.append(pending.frame);
      return;
    }
    if (pending.was_said) {
      over.sealed = pending.nginx == nginx ? wire::Over::kAsOthers : wire::Over::kElsewhere;
    } else {
      pending.was_said = true;
      pending.nginx = nginx;
    }
    wire::append(out, number, over);
  }

  HoldAll hold_all_;
  std::vector<Line> lines_;
  size_t most_unsent_ = 0;               // of the first
  std::map<uint64_t, Pending> pending_;  // OVER, by number: the oldest job first
};

}  // namespace penstock::queue
