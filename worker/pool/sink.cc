#include "worker/pool/sink.h"

#include <algorithm>

#include "shared/wire/messages.h"

namespace penstock {

void FrameSink::head(JobNumber job, int status, std::string_view content_type,
                     int64_t content_length) {
  wire::Head head;
  head.status = static_cast<uint64_t>(status);
  head.content_type = content_type;
  head.content_length_plus1 = static_cast<uint64_t>(std::max<int64_t>(content_length, -1) + 1);
  wire::append(out_, job, head);
}

void FrameSink::chunk(JobNumber job, std::string_view bytes) {
  wire::append_chunk(out_, job, bytes);
}

void FrameSink::progress(JobNumber job, double fraction, uint32_t step, uint32_t steps) {
  wire::Progress progress;
  progress.millionths = fraction > 0 ? static_cast<uint64_t>(std::min(fraction, 1.0) * 1e6) : 0;
  progress.step = step;
  progress.steps = steps;
  wire::append(out_, job, progress);
}

void FrameSink::done(JobNumber job, const Usage& usage) {
  wire::append(out_, job,
               wire::Done{usage.prompt_tokens, usage.completion_tokens, usage.device_ns});
  ended_.push_back(job);
}

void FrameSink::failed(JobNumber job, const Failure& failure) {
  refuse(job, failure);
  ended_.push_back(job);
}

void FrameSink::refuse(JobNumber job, const Failure& failure) {
  wire::Failed failed;
  failed.status = static_cast<uint64_t>(failure.status);
  failed.code = failure.code;
  failed.message = failure.message;
  failed.param = failure.param;
  failed.retryable = failure.retryable ? 1 : 0;
  wire::append(out_, job, failed);
}

}  // namespace penstock
