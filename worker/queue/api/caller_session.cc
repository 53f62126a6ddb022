#include "worker/queue/api/caller_session.h"

#include "worker/queue/api/intake.h"
#include "worker/queue/api/jobs_api.h"
#include "worker/queue/api/operator_api.h"
#include "worker/queue/challenges/provider_checks.h"
#include "worker/queue/jobs/dispatcher.h"

namespace penstock::queue {

using wire::FrameType;

namespace {

constexpr size_t kMostQuotaText = 64;

UsageCounts counts_of(const wire::Spent& spent) {
  UsageCounts counts;
  counts[kRequests] = spent.requests != 0 ? 1 : 0;
  counts[kPromptTokens] = usage_of_tokens(spent.prompt_tokens);
  counts[kCompletionTokens] = usage_of_tokens(spent.completion_tokens);
  counts[kGpuMs] = usage_of_tokens(spent.gpu_ms);
  return counts;
}

}  // namespace

void CallerSession::on_frame(const wire::Frame& frame, std::string_view bytes) {
  if (role_ == 0 && frame.header.type != FrameType::kHello) {
    return refuse("the first frame is not HELLO");
  }
  switch (frame.header.type) {
    case FrameType::kHello:
      return on_hello(frame, bytes);
    case FrameType::kSubmit:
      return on_submit(frame, bytes);
    case FrameType::kCancel:
      if (Waiter* const waiter = find(frame.header.id); waiter != nullptr) {
        handlers_.dispatcher.release(*waiter);
      }
      return;
    case FrameType::kSpent:
      return on_spent(frame);
    case FrameType::kQuota:
      return on_quota(frame);
    case FrameType::kAsk:
      return on_ask(frame);
    case FrameType::kStatus:
      return on_status(frame);
    case FrameType::kSettled:
      return has_role(wire::Role::kEdge) ? handlers_.dispatcher.settled(frame.header.id)
                                         : refuse("SETTLED is for the edge's own line");
    case FrameType::kVerify:
      return on_verify(frame);
    default:
      return refuse("a frame that callers do not send");
  }
}

void CallerSession::on_hello(const wire::Frame& frame, std::string_view bytes) {
  wire::Hello hello;
  if (const char* const error = wire::parse(frame.payload, hello); error != nullptr) {
    return refuse(error);
  }
  const auto is = [&](wire::Role role) { return hello.role == static_cast<uint64_t>(role); };
  const bool knows = hello.version >= wire::kVersion && hello.version <= wire::kNewestVersion;
  if (peer_.is(kEdge) && (is(wire::Role::kCaller) || is(wire::Role::kEdge))) {
    host_.on_edge(*this, hello, !knows);
  }
  if (!knows) {
    return refuse("another version of the protocol; these are versions 1 to 3");
  }
  const bool known = is(wire::Role::kCaller) || is(wire::Role::kTool) || is(wire::Role::kEdge) ||
                     is(wire::Role::kWorker);
  if (!known) {
    return refuse("HELLO names no role that may connect here");
  }
  if (role_ != 0 && role_ != hello.role && !may_turn(hello.role)) {
    return refuse("HELLO was repeated with another role");
  }
  if (!may_be(hello.role)) {
    return deny(hello.role);
  }
  if (is(wire::Role::kWorker)) {
    hello_ = bytes;
    return hand_over();
  }
  const bool first = role_ == 0;
  role_ = hello.role;
  if (first) {
    host_.on_greeted(*this);
  }
  if (first && is(wire::Role::kEdge)) {
    handlers_.dispatcher.edges().joined(*this, hello.settles != 0, hello.nginx);
  }
}

// An Nginx has one set of kept connections for its callers' requests and for its console's.
bool CallerSession::may_turn(uint64_t role) const {
  const auto turns = [](uint64_t each) {
    return each == static_cast<uint64_t>(wire::Role::kCaller) ||
           each == static_cast<uint64_t>(wire::Role::kTool);
  };
  return turns(role_) && turns(role) && requests().empty();
}

bool CallerSession::may_be(uint64_t role) const {
  switch (static_cast<wire::Role>(role)) {
    case wire::Role::kTool:
      return peer_.is(kOperator) || peer_.is(kViewer);
    case wire::Role::kWorker:
      return peer_.is(kWorker);
    default:
      return peer_.is(kEdge);
  }
}

void CallerSession::deny(uint64_t role) {
  const auto is = [&](wire::Role which) { return role == static_cast<uint64_t>(which); };
  const std::string reason =
      peer_.text() + (is(wire::Role::kTool) ? " is no operator; `access.operators` names who is"
                      : is(wire::Role::kWorker)
                          ? " may be no worker; `access.workers` names who may"
                          : " is no edge; `access.edges` or `socket_group` says who is");
  host_.on_denied(reason);
  say_goodbye(reason, true);
}

void CallerSession::set_roles(uint8_t roles) {
  peer_.roles = roles;
  if (greeted() && !closed() && !may_be(role_)) {
    deny(role_);
  }
}

// Whether a request may come under this id; if not, it has been dealt with.
bool CallerSession::good_id(uint64_t id) {
  if (id == 0 || find(id) != nullptr) {
    refuse(id == 0 ? "a request has no id" : "a request with an id that is in use");
    return false;
  }
  if (requests().size() >= kMaxRequests) {
    handlers_.intake.refuse_crowded(*this, id);
    return false;
  }
  return true;
}

void CallerSession::on_ask(const wire::Frame& frame) {
  wire::Ask ask;
  if (const char* const error = wire::parse(frame.payload, ask); error != nullptr) {
    return refuse(error);
  }
  if (!good_id(frame.header.id)) {
    return;
  }
  if (is_tool() && handlers_.operator_api != nullptr && is_order(ask)) {
    orders_.add(order_of(frame.header.id, ask));
  }
  if (is_tool() && !peer_.is(kOperator) &&
      (handlers_.operator_api == nullptr || !handlers_.operator_api->is_for_viewers(ask))) {
    return wire::append(out(), frame.header.id,
                        wire::Failed{.status = 403,
                                     .code = "forbidden",
                                     .message = "Viewers see the status and the jobs, without what "
                                                "these ask and answer, and give no orders; "
                                                "`access.operators` names who may do this."});
  }
  if (is_tool() && handlers_.operator_api != nullptr) {
    return handlers_.operator_api->ask(*this, frame.header.id, ask);
  }
  handlers_.jobs_api.ask(*this, frame.header.id, ask);
}

void CallerSession::on_spent(const wire::Frame& frame) {
  wire::Spent spent;
  if (const char* const error = wire::parse(frame.payload, spent); error != nullptr) {
    return refuse(error);
  }
  if (!has_role(wire::Role::kCaller)) {
    return refuse("SPENT is for callers");
  }
  const UsageCounts counts = counts_of(spent);
  if (Waiter* const waiter = find(frame.header.id); waiter != nullptr) {
    handlers_.dispatcher.release(*waiter, &counts);
  } else {
    handlers_.dispatcher.correct_usage(*this, frame.header.id, counts);
  }
}

void CallerSession::on_quota(const wire::Frame& frame) {
  wire::QuotaNotice quota;
  if (const char* const error = wire::parse(frame.payload, quota); error != nullptr) {
    return refuse(error);
  }
  const auto is_short = [](std::string_view text) { return text.size() <= kMostQuotaText; };
  if (!has_role(wire::Role::kCaller) || !is_short(quota.limit) || !is_short(quota.key_hash) ||
      !is_short(quota.unit) || !is_short(quota.period)) {
    return refuse("a QUOTA that no edge sends");
  }
  if (handlers_.dispatcher.on_quota) {
    handlers_.dispatcher.on_quota(quota);
  }
}

void CallerSession::on_submit(const wire::Frame& frame, std::string_view bytes) {
  wire::Submit submit;
  if (const char* const error = wire::parse(frame.payload, submit); error != nullptr) {
    return refuse(error);
  }
  if (is_tool() && !peer_.is(kEdge)) {
    return deny(static_cast<uint64_t>(wire::Role::kCaller));
  }
  if (good_id(frame.header.id)) {
    handlers_.intake.submit(*this, frame.header.id, submit, bytes);
  }
}

void CallerSession::on_verify(const wire::Frame& frame) {
  wire::Verify verify;
  if (const char* const error = wire::parse(frame.payload, verify); error != nullptr) {
    return refuse(error);
  }
  if (!has_role(wire::Role::kCaller)) {
    return refuse("VERIFY is for callers");
  }
  if (handlers_.checks == nullptr) {
    return wire::append(out(), frame.header.id, wire::Verified{});
  }
  handlers_.checks->ask(*this, frame.header.id, verify);
}

// A body over the limit is the client's doing, not the caller's: it is told, and the connection
// lives on.
bool CallerSession::on_oversized(const wire::FrameHeader& header) {
  if (role_ == 0 || header.type != FrameType::kSubmit || header.id == 0 ||
      find(header.id) != nullptr) {
    return false;
  }
  handlers_.intake.refuse_oversized(*this, header.id, header.length);
  return true;
}

// Judged by its header, so that no number of requests which come at once takes more memory than all
// may hold.
bool CallerSession::on_begun(const wire::FrameHeader& header) {
  if (role_ == 0 && header.type != FrameType::kHello) {
    refuse("the first frame is not HELLO");
    return true;
  }
  if (header.type != FrameType::kSubmit || header.id == 0 || find(header.id) != nullptr ||
      handlers_.intake.has_room_for(header.length)) {
    return true;
  }
  handlers_.intake.refuse_for_memory(*this, header.id);
  return false;
}

void CallerSession::on_status(const wire::Frame& frame) {
  if (!is_tool()) {
    return refuse("STATUS is for tools");
  }
  const std::string json = host_.status_json();
  wire::append(out(), frame.header.id, wire::StatusReport{json});
}

// What it was told of its orders.
void CallerSession::on_written(std::string_view frames) {
  orders_.answered(frames, [this](const Order& order, uint64_t status) {
    handlers_.operator_api->audit().told(peer_, order, status, connections().now_ns());
  });
}

// Answers that were held up for it may go on.
void CallerSession::on_drained() {
  for (const InFlight& each : requests()) {
    if (each.waiter->kind == Waiter::Kind::kAnswer && each.waiter->job != nullptr) {
      handlers_.dispatcher.widen(*each.waiter->job);
    }
  }
}

void CallerSession::on_refused(std::string_view reason) {
  host_.on_refused(is_tool() ? "a tool" : "a caller", reason);
}

void CallerSession::on_closed() {
  orders_.left([this](const Order& order, uint64_t status) {
    handlers_.operator_api->audit().told(peer_, order, status, connections().now_ns());
  });
  if (handed_over()) {
    return host_.on_worker(*this, std::move(hello_));
  }
  if (handlers_.checks != nullptr) {
    handlers_.checks->left(*this);
  }
  while (!requests().empty()) {
    handlers_.dispatcher.release(*requests().back().waiter);
  }
  if (has_role(wire::Role::kEdge)) {
    handlers_.dispatcher.edges().left(*this);
  }
  host_.on_caller_closed(*this);
}

}  // namespace penstock::queue
