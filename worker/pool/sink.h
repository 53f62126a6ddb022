// FrameSink: turns what an engine says of its jobs into frames for penstockd.
//
// It only appends to a buffer; the pool sends all frames of a turn in one write. It also remembers
// which jobs ended, so that the pool can free their slots once the engine has returned (the engine
// is in the middle of a step when it speaks).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "worker/pool/engine.h"

namespace penstock {

class FrameSink final : public Sink {
 public:
  // `out` must outlive this.
  explicit FrameSink(std::string& out) : out_(out) {}

  void head(JobNumber job, int status, std::string_view content_type,
            int64_t content_length) override;
  void chunk(JobNumber job, std::string_view bytes) override;
  void progress(JobNumber job, double fraction, uint32_t step, uint32_t steps) override;
  void done(JobNumber job, const Usage& usage) override;
  void failed(JobNumber job, const Failure& failure) override;

  // A job that never started is refused: as failed(), but not among ended().
  void refuse(JobNumber job, const Failure& failure);

  // Jobs of which done() or failed() was said since the owner last cleared this.
  std::vector<JobNumber>& ended() { return ended_; }

 private:
  std::string& out_;
  std::vector<JobNumber> ended_;
};

}  // namespace penstock
