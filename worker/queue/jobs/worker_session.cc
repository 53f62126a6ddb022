#include "worker/queue/jobs/worker_session.h"

#include <algorithm>

#include "shared/base/utf8.h"
#include "shared/http/header_lines.h"
#include "shared/http/inert_type.h"
#include "worker/queue/bound/scaling.h"
#include "worker/queue/bound/turns.h"

namespace penstock::queue {

using wire::FrameType;

namespace {

double seconds(int64_t ns) { return static_cast<double>(ns) / kNsPerSec; }

// It is kept with the job, shown in lists, and must fit the edge's buffers.
std::string_view at_most(size_t bytes, std::string_view text) {
  const std::string_view cut = text.substr(0, bytes);
  return cut.size() == text.size() ? text : cut.substr(0, utf8_complete_prefix(cut));
}

// Those of an answer: nullptr, or the rule that is broken.
const char* check_headers(std::string_view lines) {
  if (lines.size() > WorkerSession::kMaxHeaders) {
    return "HEAD with too many headers";
  }
  http::HeaderLine line;
  for (size_t count = 0; !lines.empty(); ++count) {
    const char* const error = count == http::kMaxHeaderLines ? "HEAD with too many headers"
                                                             : http::next_header_line(lines, line);
    if (error != nullptr) {
      return error;
    }
  }
  return nullptr;
}

}  // namespace

void WorkerSession::on_frame(const wire::Frame& frame, std::string_view bytes) {
  last_heard_ns_ = connections().now_ns();
  const char* error = nullptr;
  if (frame.header.type == FrameType::kGoodbye) {
    return on_goodbye(frame);
  }
  if (!said_hello() && frame.header.type != FrameType::kHello) {
    return refuse("the first frame is not HELLO");
  }
  switch (frame.header.type) {
    case FrameType::kHead:
    case FrameType::kChunk:
    case FrameType::kProgress:
    case FrameType::kPreview:
    case FrameType::kDone:
    case FrameType::kFailed:
      error = on_answer(frame, bytes);
      break;
    case FrameType::kTake:
      error = on_take(frame);
      break;
    case FrameType::kClaim:
      error = on_claim(frame);
      break;
    case FrameType::kSlots:
      error = on_slots(frame);
      break;
    case FrameType::kHeartbeat:
      error = on_heartbeat(frame);
      break;
    case FrameType::kChecked:
      error = on_checked(frame);
      break;
    case FrameType::kHello:
      error = on_hello(frame);
      break;
    default:
      error = "a frame that workers do not send";
  }
  if (error != nullptr) {
    refuse(error);
  }
}

const char* WorkerSession::on_hello(const wire::Frame& frame) {
  wire::Hello hello;
  if (const char* const error = wire::parse(frame.payload, hello); error != nullptr) {
    return error;
  }
  if (hello.version < wire::kVersion || hello.version > wire::kNewestVersion) {
    return "another version of the protocol; these are versions 1 to 3";
  }
  // One that connects by itself says whose process it is, not which of them.
  if (hello.role != static_cast<uint64_t>(wire::Role::kWorker) ||
      (hello.name != name_ && hello.name != Scaling::worker_of(name_))) {
    return "HELLO is not from the worker that was started";
  }
  if (hello.slots == 0 || hello.slots > kMaxCredit) {
    return "HELLO has no slots, or too many";
  }
  if (said_hello() && hello.slots != slots_) {
    return "HELLO was repeated with other slots";
  }
  slots_ = static_cast<uint32_t>(hello.slots);
  checks_ = static_cast<wire::Checking>(hello.checks);
  chat_ = at_most(kMaxChat, hello.chat);
  serving_ = &events_.serving(lane_);
  return nullptr;
}

// The worker gives up and says why; the reason outlives it as the worker's last error.
void WorkerSession::on_goodbye(const wire::Frame& frame) {
  wire::Goodbye goodbye;
  if (wire::parse(frame.payload, goodbye) == nullptr) {
    last_words_ = goodbye.message.substr(0, kMaxLastWords);
    device_fault_ = goodbye.device_fault != 0;
  }
  close();
}

const char* WorkerSession::on_take(const wire::Frame& frame) {
  wire::Take take;
  if (const char* const error = wire::parse(frame.payload, take); error != nullptr) {
    return error;
  }
  if (take.credit > kMaxCredit - credit_) {
    return "TAKE asks for too many jobs";
  }
  credit_ += static_cast<uint32_t>(take.credit);
  // Of jobs that have ended, whatever it says.
  const auto held = static_cast<uint32_t>(std::min<size_t>(given_.size(), seat_.busy()));
  seat_.return_slots(std::min<uint64_t>(take.credit, seat_.busy() - held));
  const auto holds = credit_ + static_cast<uint32_t>(given_.size());
  const bool grew = holds > capacity_;
  capacity_ = std::max(capacity_, holds);
  if (!ready_ && credit_ > 0) {
    ready_ = true;
    host_.on_worker_ready(*this);
  } else if (grew) {
    events_.recount();
  }
  seat_.return_bytes(take.memory_bytes);
  events_.fill(seat_.claims());
  return nullptr;
}

// A job's memory on the device. One that is not given to it any more asks for nothing.
const char* WorkerSession::on_claim(const wire::Frame& frame) {
  wire::Claim claim;
  if (const char* const error = wire::parse(frame.payload, claim); error != nullptr) {
    return error;
  }
  if (claim.memory_bytes == 0 || claim.memory_bytes > kMaxClaim) {
    return "CLAIM of no bytes, or of more than any device has";
  }
  if (find(frame.header.id) != nullptr) {
    return seat_.claim(frame.header.id, static_cast<int64_t>(claim.memory_bytes), *this)
               ? nullptr
               : "a second CLAIM for a job";
  }
  return nullptr;
}

const char* WorkerSession::on_slots(const wire::Frame& frame) {
  wire::Slots slots;
  if (const char* const error = wire::parse(frame.payload, slots); error != nullptr) {
    return error;
  }
  if (slots.slots > slots_ || (slots.out != 0 && slots.slots != 0)) {
    return "SLOTS of more than it has, or of some though it is out";
  }
  open_slots_ = static_cast<uint32_t>(slots.slots);
  is_out_ = slots.out != 0;
  why_closed_ = at_most(kMaxLastWords, slots.message);
  const auto retry_ms = static_cast<int64_t>(std::min<uint64_t>(slots.retry_ms, kMaxRetryMs));
  reopens_ns_ = connections().now_ns() + retry_ms * kNsPerMs;
  events_.on_slots(*this);
  return nullptr;
}

void WorkerSession::on_granted(uint64_t job, int64_t bytes) {
  wire::append(out(), job, wire::Grant{static_cast<uint64_t>(bytes)});
}

const char* WorkerSession::on_heartbeat(const wire::Frame& frame) {
  const char* const error = wire::parse(frame.payload, heartbeat_);
  if (error == nullptr && heartbeat_.context_tokens > 0) {
    lane_.context_tokens = heartbeat_.context_tokens;
  }
  return error;
}

const char* WorkerSession::on_checked(const wire::Frame& frame) {
  wire::Checked checked;
  if (const char* const error = wire::parse(frame.payload, checked); error != nullptr) {
    return error;
  }
  if (checked.status != 0 && (checked.status < 400 || checked.status > 499)) {
    return "CHECKED with a status that is no refusal";
  }
  checked.code = at_most(kMaxNameBytes, checked.code);
  checked.message = at_most(kMaxReason, checked.message);
  checked.param = at_most(kMaxNameBytes, checked.param);
  return events_.on_checked(frame.header.id, checked) ? nullptr
                                                      : "CHECKED for a number it was not given";
}

const char* WorkerSession::on_answer(const wire::Frame& frame, std::string_view bytes) {
  Given* const given = find(frame.header.id);
  if (given == nullptr) {
    const bool was_given = frame.header.id != 0 && frame.header.id <= last_number_;
    return was_given ? nullptr : "a frame for a job it was not given";
  }
  Job* const job = given->job;
  switch (frame.header.type) {
    case FrameType::kHead:
      return on_head(*given, frame);
    case FrameType::kChunk:
      if (!job->answer_began) {
        return "CHUNK before HEAD";
      }
      events_.on_chunk(*job, frame.payload, bytes);
      return nullptr;
    case FrameType::kProgress: {
      wire::Progress progress;
      const char* const error = wire::parse(frame.payload, progress);
      if (error == nullptr) {
        events_.on_progress(*job, progress, bytes);
      }
      return error;
    }
    case FrameType::kPreview: {
      wire::Preview preview;
      const char* const error = wire::parse(frame.payload, preview);
      if (error == nullptr && !http::is_inert_picture(preview.content_type)) {
        return "PREVIEW that is no picture";
      }
      if (error == nullptr) {
        events_.on_preview(*job, preview);
      }
      return error;
    }
    default:
      return on_end(*given, frame, bytes);
  }
}

const char* WorkerSession::on_head(Given& given, const wire::Frame& frame) {
  wire::Head head;
  if (const char* const error = wire::parse(frame.payload, head); error != nullptr) {
    return error;
  }
  if (head.status < 200 || head.status > 599) {
    return "HEAD without a status";
  }
  if (!head.file.empty() || head.promised != 0 || head.duplicate != 0 || head.opens != 0 ||
      head.queue_us != 0 || head.run_us != 0) {
    return "HEAD with what is for penstockd to say";
  }
  if (const char* const error = check_headers(head.headers); error != nullptr) {
    return error;
  }
  Job& job = *given.job;
  if (job.answer_began) {
    return "a second HEAD";
  }
  if (head.content_length_plus1 == 0) {
    given.head_ns = connections().now_ns();
    serving_->first_token.observe(seconds(given.head_ns - job.arrived_ns()));
  }
  events_.on_head(job, head);
  return nullptr;
}

const char* WorkerSession::on_end(Given& given, const wire::Frame& frame, std::string_view bytes) {
  Job& job = *given.job;
  if (frame.header.type == FrameType::kDone) {
    wire::Done done;
    if (const char* const error = wire::parse(frame.payload, done); error != nullptr) {
      return error;
    }
    if (!job.answer_began) {
      return "DONE before HEAD";
    }
    note_done(given, done);
    events_.on_done(job, done, bytes);
    return nullptr;
  }
  wire::Failed failed;
  if (const char* const error = wire::parse(frame.payload, failed); error != nullptr) {
    return error;
  }
  if (failed.status < 400 || failed.status > 599) {
    return "FAILED without an error status";
  }
  if (!failed.headers.empty() || !failed.json.empty()) {
    return "FAILED with what is for penstockd to say";
  }
  failed.code = at_most(kMaxNameBytes, failed.code);
  failed.message = at_most(kMaxReason, failed.message);
  failed.param = at_most(kMaxNameBytes, failed.param);
  events_.on_failed(job, failed);
  return nullptr;
}

// The first token came with HEAD; the others since.
void WorkerSession::note_done(Given& given, const wire::Done& done) {
  if (done.estimated == 0) {
    given.tokens = done.prompt_tokens + done.completion_tokens;
  }
  if (given.head_ns != 0 && done.completion_tokens > 1) {
    serving_->per_token.observe(seconds(connections().now_ns() - given.head_ns) /
                                static_cast<double>(done.completion_tokens - 1));
  }
}

void WorkerSession::assign(Job& job, uint64_t number, int64_t priority, int64_t expected_ns) {
  --credit_;
  seat_.take_slot();
  ++seat_.budget().running;
  last_number_ = number;
  job.extra().worker = this;
  job.more->number = number;
  job.more->taken_bytes = 0;
  lane_.braked_turn = pace_ != nullptr ? pace_->next_turn() : 0;
  const int64_t now_ns = connections().now_ns();
  const uint64_t tokens = Scheduler::cost_of(job);
  given_.push_back({.number = number,
                    .job = &job,
                    .sent = false,
                    .given_ns = now_ns,
                    .priority = priority,
                    .charged_ns = take_turn(seat_.budget(), priority, expected_ns, now_ns),
                    .paced = pace_ != nullptr ? pace_->start(tokens, now_ns) : Pace::Start{},
                    .tokens = tokens});
}

// What follows the header. A large one is not copied.
void WorkerSession::append_payload(const SharedBytes& frame) {
  constexpr size_t kSmallBytes = 64U << 10;
  if (frame.size() <= kSmallBytes) {
    out().append(frame.view().substr(wire::kHeaderBytes));
  } else {
    send_shared(frame, wire::kHeaderBytes);
  }
}

void WorkerSession::send(const Job& job, const SharedBytes& frame, std::string_view trace) {
  find(job.more->number)->sent = true;
  const bool ends = job.deadline_ns() != INT64_MAX;
  const size_t length = frame.size() - wire::kHeaderBytes + (ends ? wire::kDeadlineFieldBytes : 0) +
                        (trace.empty() ? 0 : wire::kFieldHeaderBytes + trace.size());
  char header[wire::kHeaderBytes];
  wire::encode_header(header, FrameType::kSubmit, job.more->number, static_cast<uint32_t>(length));
  out().append(header, sizeof header);
  append_payload(frame);
  if (ends) {
    const int64_t left_ms = (job.deadline_ns() - connections().now_ns()) / kNsPerMs;
    char field[wire::kDeadlineFieldBytes];
    wire::write_number(field, wire::Submit::kDeadlineTag,
                       static_cast<uint64_t>(std::max<int64_t>(left_ms, 1)));
    out().append(field, sizeof field);
  }
  if (!trace.empty()) {
    char field[wire::kFieldHeaderBytes];
    wire::write_field_header(field, wire::Submit::kTraceTag, static_cast<uint32_t>(trace.size()));
    out().append(field, sizeof field).append(trace);
  }
}

bool WorkerSession::was_sent(const Job& job) const {
  return std::any_of(given_.rbegin(), given_.rend(),  // whose jobs go back, the last goes first
                     [&](const Given& each) { return each.job == &job && each.sent; });
}

void WorkerSession::show(const SharedBytes& frame, uint64_t number) {
  char header[wire::kHeaderBytes];
  wire::encode_header(header, FrameType::kCheck, number,
                      static_cast<uint32_t>(frame.size() - wire::kHeaderBytes));
  out().append(header, sizeof header);
  append_payload(frame);
}

bool WorkerSession::revoke(Job& job) {
  const bool free = !find(job.more->number)->sent;
  if (free) {
    ++credit_;
    seat_.return_slots(1);
  } else {
    seat_.withdraw(job.more->number);
    wire::append_empty(out(), FrameType::kCancel, job.more->number);
  }
  forget(job);
  return free;
}

void WorkerSession::forget(const Job& job) {
  const Given& given = *find(job.more->number);
  given.job->more->worker = nullptr;
  --seat_.budget().running;
  const int64_t now_ns = connections().now_ns();
  settle_turn(seat_.budget(), given.priority, given.charged_ns, now_ns - given.given_ns);
  if (pace_ != nullptr && given.sent) {
    pace_->end(given.paced, given.tokens, now_ns);
  } else if (pace_ != nullptr) {
    pace_->take_back(given.paced, now_ns);
  }
  given_.erase(given_.begin() + (&given - given_.data()));  // in their order
}

void WorkerSession::drain() {
  if (!draining_) {
    draining_ = true;
    wire::append_empty(out(), FrameType::kDrain, 0);
    events_.recount();
  }
}

void WorkerSession::tell_log(const LogSettings& log) {
  wire::append(out(), 0,
               wire::Log{.level = static_cast<uint64_t>(log.level),
                         .format = static_cast<uint64_t>(log.format)});
}

// nullptr: it is not given, or not any more. O(log jobs), for each frame.
WorkerSession::Given* WorkerSession::find(uint64_t number) {
  const auto at =
      std::lower_bound(given_.begin(), given_.end(), number,
                       [](const Given& each, uint64_t wanted) { return each.number < wanted; });
  return at != given_.end() && at->number == number ? &*at : nullptr;
}

}  // namespace penstock::queue
