// CudaRunner: draws of what some jobs have changed (token_edits.h), and how likely each was.
#include <algorithm>

#include "worker/engines/llama/cuda/kernels.h"
#include "worker/engines/llama/cuda/runner.h"

namespace penstock::llama::cuda {

// The step has drawn every row as if nothing were edited. Draws again those that are, as many at
// once as there is room for edits of (each row has room alone), and tells of probabilities.
Status CudaRunner::draw_edited(std::span<const SequencePart> parts) {
  auto* const begins = reinterpret_cast<int32_t*>(edit_staging_.get());
  auto* const edits = reinterpret_cast<LogitEdit*>(edit_staging_.get() + begins_bytes());
  int64_t first = 0;  // row of those gathered
  int64_t rows = 0;   // gathered
  int64_t count = 0;  // of their edits
  bool wants_logprob = false;
  begins[0] = 0;
  for (const SequencePart& part : parts) {
    if (!part.wants_logits) {
      continue;
    }
    const auto more = static_cast<int64_t>(part.edits.size());
    if (count + more > config_.vocabulary) {
      Status drawn = redraw(first, rows, count);
      if (!drawn) {
        return drawn;
      }
      first += rows;
      rows = count = 0;
    }
    std::copy(part.edits.begin(), part.edits.end(), edits + count);
    count += more;
    begins[++rows] = static_cast<int32_t>(count);
    wants_logprob = wants_logprob || part.wants_logprob;
  }
  Status drawn = redraw(first, rows, count);
  return drawn && wants_logprob ? tell_logprobs() : drawn;
}

// Rows [first, first + rows) by the edits in edit_staging_, which may be changed afterwards.
Status CudaRunner::redraw(int64_t first, int64_t rows, int64_t edits) {
  if (edits == 0) {
    return Ok{};
  }
  CUstream_st* stream = stream_.get();
  const auto* begins = reinterpret_cast<const int32_t*>(room_.edits);
  auto* const on_device = reinterpret_cast<LogitEdit*>(room_.edits + begins_bytes());
  float* const logits = room_.logits + first * config_.vocabulary;
  Status done = copy_to_device(stream, room_.edits, edit_staging_.get(),
                               begins_bytes() + edits * static_cast<int64_t>(sizeof(LogitEdit)));
  if (done) {
    edit(stream, logits, on_device, begins, rows, config_.vocabulary);
    sample(stream, room_.drawn + first, logits, batch_.draws + first, rows, config_.vocabulary);
    restore(stream, logits, on_device, begins, rows, config_.vocabulary);
    done = copy_to_host(stream, host_drawn_, reinterpret_cast<const std::byte*>(room_.drawn),
                        last_drawn_ * static_cast<int64_t>(sizeof(int32_t)));
  }
  const Status started = launched();
  const Status finished = wait(stream);
  return !done ? done : !started ? started : finished;
}

Status CudaRunner::tell_logprobs() {
  CUstream_st* stream = stream_.get();
  std::byte* const host = edit_staging_.get() + edit_bytes();
  score(stream, room_.logprobs, room_.drawn, room_.logits, batch_.draws, last_drawn_,
        config_.vocabulary);
  Status done = copy_to_host(stream, host, reinterpret_cast<const std::byte*>(room_.logprobs),
                             last_drawn_ * static_cast<int64_t>(sizeof(float)));
  const Status started = launched();
  const Status finished = wait(stream);
  const auto* told = reinterpret_cast<const float*>(host);
  logprobs_.assign(told, told + last_drawn_);
  return !done ? done : !started ? started : finished;
}

}  // namespace penstock::llama::cuda
