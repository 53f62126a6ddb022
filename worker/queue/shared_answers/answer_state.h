// AnswerReader::State: how far one follower has been told of one answer. For answer_reader.cc
// alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "worker/queue/shared_answers/answer_reader.h"

namespace penstock::queue {

struct AnswerReader::State : std::enable_shared_from_this<AnswerReader::State> {
  struct Held {
    PartPlace place;
    Part::Kind kind;
    std::string bytes;
  };
  AnswerReader* reader;
  Follower* follower;  // nullptr: nobody is told any more
  std::string id;
  bool live;  // parts come by the host's channel
  bool kept;  // and can be read from the stream
  PartPlace next{0, 1};
  bool paused = false, ended = false, lost = false;
  bool begun = false;   // some of it was told
  bool over = false;    // as the order says
  bool behind = false;  // the stream has, or may have, what was not held
  std::deque<Held> held;
  size_t held_bytes = 0;
  bool asking = false, ask_again = false;
  bool looking = false;        // for what is missing
  int64_t looks_until_ns = 0;  // 0: Redis has not answered yet
  int64_t due_ns = INT64_MAX;

  bool has_hole() const { return !held.empty() && held.front().place != next; }
  bool misses_some() const { return has_hole() || behind || over; }
  void forget_held() {
    held.clear();
    held_bytes = 0;
  }
};

}  // namespace penstock::queue
