// HeardAnswer: the answer of a job that runs on another host, as it is heard here.
#pragma once

#include <cstdint>
#include <memory>

#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/shared_answers/answer_reader.h"

namespace penstock::queue {

class HeardAnswer final : public AnswerReader::Follower {
 public:
  // The dispatcher lives longer.
  HeardAnswer(Dispatcher& dispatcher, const JobId& id) : dispatcher_(dispatcher), id_(id) {}

  std::unique_ptr<AnswerReader::Following> following;
  uint64_t bytes = 0;      // of the answer, that have come
  bool paused = false;     // nobody reads on
  bool lost = false;       // some of it has not come, and is to be asked for
  bool seen_back = false;  // since the last part, the order has said that it waits

 private:
  // Each may be its end.
  void on_part(const Part& part) override { dispatcher_.heard(id_, part); }
  void on_restarted(uint64_t) override { dispatcher_.begin_again(*dispatcher_.find(id_)); }
  void on_lost() override { dispatcher_.heard_hole(id_); }
  void on_over() override { dispatcher_.heard_over(id_); }

  Dispatcher& dispatcher_;
  const JobId id_;
};

}  // namespace penstock::queue
