// Submission: sends a batch's requests to an edge, so many at once and no faster than told, and
// writes each result as it comes.
//
// Every request carries an Idempotency-Key that is made of it alone, and asks to be promised
// (Prefer: respond-async): whatever is killed in between, the same request sent again joins the job
// that is there, or is given its answer. So what is sent again does not run again.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <string>

#include "shared/base/result.h"
#include "worker/ctl/batch.h"
#include "worker/ctl/edge.h"
#include "worker/ctl/next_step.h"
#include "worker/ctl/progress_bar.h"

namespace penstock::ctl {

class Submission {
 public:
  struct Pace {
    size_t concurrency = 4;
    int64_t interval_ns = 0;  // from one request to the next
  };
  // All must outlive this.
  Submission(Edge& edge, BatchFile& batch, ResultsFile& results, const Pace& pace);

  // Requests that may be refused to the caller (401, 403) without an answer to another between
  // them.
  static constexpr int kMostPutOff = 3;

  // Until every request has its result. `tell` is called again and again. An Error: it stopped
  // before, or some were refused to this caller; what has its result keeps it.
  Status run(const std::function<void(const Progress&)>& tell);
  const Progress& progress() const { return progress_; }

 private:
  // A request on its way.
  struct Task {
    BatchRequest request;
    Edge::Question question;
    bool promised = false;
    bool asked = false;  // the edge has the question
    int64_t due_ns = 0;  // else it is asked then
    int tries = 0;       // in a row that came to nothing
  };
  Status take_more();
  Status ask_due(int64_t now_ns);
  int64_t due_ns(const Task& task) const;
  Status heard(Task& task, int64_t now_ns);
  Status finish(const Task& task, const std::string& line, bool good);
  Status finish_with_answer(const Task& task);
  Status put_off(const Task& task);
  void forget(const Task& task);
  void note(int64_t now_ns);

  Edge& edge_;
  BatchFile& batch_;
  ResultsFile& results_;
  Pace pace_;
  size_t next_ = 0;              // of the batch
  std::list<Task> tasks_;        // at most pace_.concurrency
  int64_t next_request_ns_ = 0;  // by the interval
  int64_t hold_ns_ = 0;          // by what the edge said: no new request before
  int put_off_ = 0;              // in a row
  std::string refusal_;          // the last one's words
  int64_t start_ns_;
  Progress progress_;
};

}  // namespace penstock::ctl
