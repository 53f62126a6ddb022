#include "worker/pool/sink.h"

#include <algorithm>

#include "shared/wire/messages.h"

namespace penstock {
namespace {

void append_failed(std::string& out, JobNumber job, const Failure& failure) {
  wire::Failed failed;
  failed.status = static_cast<uint64_t>(failure.status);
  failed.code = failure.code;
  failed.message = failure.message;
  failed.param = failure.param;
  failed.retryable = failure.retryable ? 1 : 0;
  failed.returned = failure.returned ? 1 : 0;
  failed.retry_after_s = failure.retry_after_s;
  wire::append(out, job, failed);
}

}  // namespace

void FrameSink::head(JobNumber job, int status, std::string_view content_type,
                     int64_t content_length, std::string_view headers) {
  wire::Head head;
  head.status = static_cast<uint64_t>(status);
  head.content_type = content_type;
  head.content_length_plus1 = static_cast<uint64_t>(std::max<int64_t>(content_length, -1) + 1);
  head.headers = headers;
  wire::append(out_, job, head);
}

// As much as the window lets go; returns how much. Small pieces go whole, though they go beyond it:
// should the answer be cut short there, no event of it is torn.
size_t FrameSink::send(JobNumber job, Flow& flow, std::string_view bytes) {
  constexpr size_t kWholeBytes = 64U << 10;
  if (flow.window <= 0) {
    return 0;
  }
  const size_t size = bytes.size() <= kWholeBytes
                          ? bytes.size()
                          : std::min(bytes.size(), static_cast<size_t>(flow.window));
  wire::append_chunk(out_, job, bytes.substr(0, size));
  flow.window -= static_cast<int64_t>(size);
  return size;
}

void FrameSink::chunk(JobNumber job, std::string_view bytes) {
  Flow& flow = flows_.try_emplace(job).first->second;
  bytes.remove_prefix(flow.held.empty() ? send(job, flow, bytes) : 0);
  if (!bytes.empty()) {
    flow.held.emplace_back(bytes);
  }
  if (flow.window <= 0 && !flow.closed) {
    flow.closed = true;
    closed_.push_back(job);
  }
}

bool FrameSink::widen(JobNumber job, uint64_t bytes) {
  const auto found = flows_.find(job);
  if (found == flows_.end()) {
    return false;  // it has just ended
  }
  Flow& flow = found->second;
  flow.window += static_cast<int64_t>(std::min<uint64_t>(bytes, INT32_MAX));
  while (flow.window > 0 && !flow.held.empty()) {
    std::string& next = flow.held.front();
    next.erase(0, send(job, flow, next));
    if (next.empty()) {
      flow.held.pop_front();
    }
  }
  if (flow.window <= 0 || !flow.closed) {
    return false;
  }
  flow.closed = false;
  std::erase(closed_, job);  // where an engine speaks as it is resumed, nobody has looked yet
  if (flow.end.empty()) {
    return true;
  }
  out_.append(flow.end);
  ended_.push_back(job);
  flows_.erase(found);
  return false;
}

void FrameSink::end(JobNumber job, std::string_view frame) {
  const auto found = flows_.find(job);
  if (found != flows_.end() && !found->second.held.empty()) {
    found->second.end = frame;
    return;
  }
  out_.append(frame);
  ended_.push_back(job);
  flows_.erase(job);
}

void FrameSink::progress(JobNumber job, double fraction, uint32_t step, uint32_t steps) {
  wire::Progress progress;
  progress.millionths = fraction > 0 ? static_cast<uint64_t>(std::min(fraction, 1.0) * 1e6) : 0;
  progress.step = step;
  progress.steps = steps;
  wire::append(out_, job, progress);
}

void FrameSink::preview(JobNumber job, std::string_view content_type, std::string_view bytes) {
  wire::append(out_, job, wire::Preview{content_type, bytes});
}

void FrameSink::open(const Opening& opening) {
  wire::append(
      out_, 0,
      wire::Slots{.slots = opening.slots,
                  .out = opening.out ? 1U : 0U,
                  .retry_ms = static_cast<uint64_t>(std::max<int64_t>(opening.retry_ms, 0)),
                  .message = opening.why});
}

void FrameSink::done(JobNumber job, const Usage& usage) {
  frame_.clear();
  wire::append(frame_, job,
               wire::Done{usage.prompt_tokens, usage.completion_tokens, usage.device_ns,
                          usage.estimated ? 1U : 0U});
  end(job, frame_);
}

void FrameSink::failed(JobNumber job, const Failure& failure) {
  frame_.clear();
  append_failed(frame_, job, failure);
  end(job, frame_);
}

void FrameSink::refuse(JobNumber job, const Failure& failure) { append_failed(out_, job, failure); }

}  // namespace penstock
