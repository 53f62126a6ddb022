// FrameSink: turns what an engine says of its jobs into frames for penstockd.
//
// It only appends to a buffer; the pool sends all frames of a turn in one write. It also remembers
// which jobs ended, so that the pool can free their slots once the engine has returned (the engine
// is in the middle of a step when it speaks).
//
// No more of an answer is sent than penstockd has room for: kFirstWindowBytes, and what WINDOW asks
// for. The rest is kept here, its end too. So that this stays little, the pool has the engine pass
// over a job whose window is closed().
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shared/wire/frame.h"
#include "worker/pool/engine.h"

namespace penstock {

class FrameSink final : public Sink {
 public:
  // `out` must outlive this.
  explicit FrameSink(std::string& out) : out_(out) {}

  void head(JobNumber job, int status, std::string_view content_type, int64_t content_length,
            std::string_view headers = {}) override;
  void chunk(JobNumber job, std::string_view bytes) override;
  void progress(JobNumber job, double fraction, uint32_t step, uint32_t steps) override;
  void preview(JobNumber job, std::string_view content_type, std::string_view bytes) override;
  void done(JobNumber job, const Usage& usage) override;
  void failed(JobNumber job, const Failure& failure) override;
  void left(JobNumber job) override { left_.push_back(job); }
  void open(const Opening& opening) override;

  // A job that never started is refused: as failed(), but not among ended().
  void refuse(JobNumber job, const Failure& failure);

  // `bytes` more of the job's answer may go. True: its window was closed, and the engine may go on.
  bool widen(JobNumber job, uint64_t bytes);
  // Nothing more is to be said of the job.
  void forget(JobNumber job) { flows_.erase(job); }

  // Jobs whose end has been sent since the owner last cleared this.
  std::vector<JobNumber>& ended() { return ended_; }
  // Jobs that left() since the owner last cleared this.
  std::vector<JobNumber>& gone() { return left_; }
  // Jobs whose window closed since the owner last cleared this.
  std::vector<JobNumber>& closed() { return closed_; }

 private:
  // An answer on its way.
  struct Flow {
    int64_t window = wire::kFirstWindowBytes;  // bytes that may be sent
    std::list<std::string> held;               // what may not, yet; most answers never hold any
    std::string end;                           // the frame behind that; empty: the job runs
    bool closed = false;
  };
  void end(JobNumber job, std::string_view frame);
  size_t send(JobNumber job, Flow& flow, std::string_view bytes);

  std::string& out_;
  std::string frame_;  // scratch
  std::unordered_map<JobNumber, Flow> flows_;
  std::vector<JobNumber> ended_;
  std::vector<JobNumber> closed_;
  std::vector<JobNumber> left_;
};

}  // namespace penstock
