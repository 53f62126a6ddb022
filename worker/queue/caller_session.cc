#include "worker/queue/caller_session.h"

#include "worker/queue/dispatcher.h"

namespace penstock::queue {

using wire::FrameType;

void CallerSession::on_frame(const wire::Frame& frame, std::string_view bytes) {
  if (role_ == 0 && frame.header.type != FrameType::kHello) {
    return refuse("the first frame is not HELLO");
  }
  switch (frame.header.type) {
    case FrameType::kHello:
      return on_hello(frame);
    case FrameType::kSubmit:
      return on_submit(frame, bytes);
    case FrameType::kCancel:
      if (Job* const job = find(frame.header.id); job != nullptr) {
        dispatcher_.abandon(*job);
      }
      return;
    case FrameType::kStatus:
      return on_status(frame);
    default:
      return refuse("a frame that callers do not send");
  }
}

void CallerSession::on_hello(const wire::Frame& frame) {
  wire::Hello hello;
  if (const char* const error = wire::parse(frame.payload, hello); error != nullptr) {
    return refuse(error);
  }
  if (hello.version != wire::kVersion) {
    return refuse("another version of the protocol; this is version 1");
  }
  const bool known = hello.role == static_cast<uint64_t>(wire::Role::kCaller) ||
                     hello.role == static_cast<uint64_t>(wire::Role::kTool);
  if (!known) {
    return refuse("HELLO names no role that may connect here");
  }
  if (role_ != 0 && role_ != hello.role) {
    return refuse("HELLO was repeated with another role");
  }
  role_ = hello.role;
}

void CallerSession::on_submit(const wire::Frame& frame, std::string_view bytes) {
  wire::Submit submit;
  if (const char* const error = wire::parse(frame.payload, submit); error != nullptr) {
    return refuse(error);
  }
  const uint64_t id = frame.header.id;
  if (id == 0 || find(id) != nullptr) {
    return refuse(id == 0 ? "SUBMIT has no id" : "SUBMIT with an id that is in use");
  }
  if (jobs_.size() >= kMaxJobs) {
    return dispatcher_.refuse_crowded(*this, id);
  }
  dispatcher_.submit(*this, id, submit, bytes);
}

// A body over the limit is the client's doing, not the caller's: it is told, and the connection
// lives on.
bool CallerSession::on_oversized(const wire::FrameHeader& header) {
  if (role_ == 0 || header.type != FrameType::kSubmit || header.id == 0 ||
      find(header.id) != nullptr) {
    return false;
  }
  dispatcher_.refuse_oversized(*this, header.id, header.length);
  return true;
}

void CallerSession::on_status(const wire::Frame& frame) {
  if (role_ != static_cast<uint64_t>(wire::Role::kTool)) {
    return refuse("STATUS is for tools");
  }
  const std::string json = host_.status_json();
  wire::append(out(), frame.header.id, wire::StatusReport{json});
}

Job* CallerSession::find(uint64_t id) const {
  for (const InFlight& each : jobs_) {
    if (each.id == id) {
      return each.job;
    }
  }
  return nullptr;
}

void CallerSession::forget(const Job& job) {
  for (InFlight& each : jobs_) {
    if (each.job == &job) {
      each = jobs_.back();
      jobs_.pop_back();
      return;
    }
  }
}

void CallerSession::on_refused(std::string_view reason) {
  host_.on_refused(role_ == static_cast<uint64_t>(wire::Role::kTool) ? "a tool" : "a caller",
                   reason);
}

void CallerSession::on_closed() {
  while (!jobs_.empty()) {
    dispatcher_.abandon(*jobs_.back().job);
  }
  host_.on_caller_closed(*this);
}

}  // namespace penstock::queue
