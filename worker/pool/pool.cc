#include "worker/pool/pool.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "shared/base/clock.h"
#include "shared/base/log.h"

namespace penstock {
namespace {

// A shorter request is read where it comes, if none is being read: engine llama cuts 4 KB of text
// into tokens in 0.2 ms, and 100 KB in 12 (one core of an EPYC).
constexpr size_t kShortBytes = 4096;
// What is shown beyond these is not judged: it may pass.
constexpr size_t kMostChecks = 64;

Failure too_big(int64_t asked_bytes, int64_t budget_bytes) {
  const auto mib = [](int64_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20); };
  return {.status = 400,
          .code = "invalid_request",
          .message = "The job needs " + mib(asked_bytes) + " MiB on the device and its budget is " +
                     mib(budget_bytes) + " MiB. Ask for fewer tokens or send a shorter prompt."};
}

// REQUIRES: it has just come.
Request request_of(const wire::Submit& submit, std::shared_ptr<const void> storage) {
  constexpr uint64_t kMostMs = 1ULL << 40;
  const auto left_ms = static_cast<int64_t>(std::min(submit.deadline_ms, kMostMs));
  return {
      .method = submit.method,
      .path = submit.path,
      .query = submit.query,
      .content_type = submit.content_type,
      .headers = submit.headers,
      .trace = submit.trace,
      .model = submit.model,
      .body = submit.body,
      .storage = std::move(storage),
      .priority = static_cast<int32_t>(std::clamp<int64_t>(submit.priority, INT32_MIN, INT32_MAX)),
      .override = submit.override,
      .deadline_ns = left_ms == 0 ? 0 : monotonic_ns() + left_ms * kNsPerMs};
}

}  // namespace

Pool::Pool(Options options, Link& link, FrameSink& sink, std::unique_ptr<Engine> engine)
    : options_(std::move(options)),
      link_(link),
      sink_(sink),
      engine_(std::move(engine)),
      beside_(engine_->admits_beside_steps() ? std::make_unique<AdmitThread>(*engine_) : nullptr),
      owed_(options_.slots) {
  running_.reserve(options_.slots);
}

Pool::Next Pool::turn(int64_t now_ns, Ready ready) {
  greet();
  if (ready.socket && !link_.receive()) {
    return gone();
  }
  if (const char* rule = read_frames(); rule != nullptr) {
    return refused(rule);
  }
  take_admitted();
  if (std::exchange(checked_, false) && !running_.empty() && !link_.flush()) {
    return gone();  // whoever asked does not wait for the step
  }
  if (start_waiting() || std::exchange(prodded_, false) || ready.engine) {
    step_due_ns_ = now_ns;
  }
  step(now_ns);
  collect_ended();
  collect_left();
  pause_closed();
  if (start_waiting()) {  // in the room the ended ones left
    step_due_ns_ = now_ns;
  }
  const bool takes = owed_ > 0;
  report(now_ns);
  if (!link_.flush()) {
    return gone();
  }
  Next next = outcome(now_ns);
  next.took = takes;
  return next;
}

const char* Pool::read_frames() {
  for (;;) {
    const wire::Decoded decoded = link_.next();
    if (decoded.kind != wire::Decoded::kFrame) {
      return decoded.error;
    }
    if (const char* rule = on_frame(decoded.frame); rule != nullptr) {
      return rule;
    }
  }
}

const char* Pool::on_frame(const wire::Frame& frame) {
  switch (frame.header.type) {
    case wire::FrameType::kSubmit:
      return on_submit(frame);
    case wire::FrameType::kCheck:
      return on_check(frame);
    case wire::FrameType::kCancel:
      on_cancel(frame.header.id);
      return nullptr;
    case wire::FrameType::kGrant: {
      wire::Grant grant;
      const char* rule = wire::parse(frame.payload, grant);
      on_grant(frame.header.id, grant.memory_bytes);
      return rule;
    }
    case wire::FrameType::kWindow: {
      wire::Window window;
      const char* rule = wire::parse(frame.payload, window);
      on_window(frame.header.id, window.bytes);
      return rule;
    }
    case wire::FrameType::kDrain:
      draining_ = true;
      return nullptr;
    case wire::FrameType::kLog:
      return on_log(frame.payload);
    case wire::FrameType::kGoodbye: {
      wire::Goodbye goodbye;
      const char* rule = wire::parse(frame.payload, goodbye);
      farewell_ = goodbye.message;
      drained_ = goodbye.drained != 0;
      return rule;
    }
    default:
      return "a frame of this type is not sent to a worker";
  }
}

const char* Pool::on_log(std::string_view payload) {
  wire::Log asked;
  if (const char* rule = wire::parse(payload, asked); rule != nullptr) {
    return rule;
  }
  if (asked.level > static_cast<uint64_t>(LogLevel::kError) ||
      asked.format > static_cast<uint64_t>(LogFormat::kJson)) {
    return "a LOG of no level, or no format";
  }
  set_log({static_cast<LogLevel>(asked.level), static_cast<LogFormat>(asked.format)});
  return nullptr;
}

const char* Pool::on_submit(const wire::Frame& frame) {
  wire::Submit submit;
  if (const char* rule = wire::parse(frame.payload, submit); rule != nullptr) {
    return rule;
  }
  const JobNumber job = frame.header.id;
  if (job == 0 || is_held(job)) {
    return job == 0 ? "a SUBMIT with id 0" : "a SUBMIT with an id in use";
  }
  if (granted_ == 0) {
    return "a SUBMIT without credit";
  }
  --granted_;
  admit({job, false}, frame.payload, submit);
  return nullptr;
}

const char* Pool::on_check(const wire::Frame& frame) {
  wire::Submit submit;
  if (const char* rule = wire::parse(frame.payload, submit); rule != nullptr) {
    return rule;
  }
  if (beside_ != nullptr && beside_->checks() >= kMostChecks) {
    wire::append(link_.out(), frame.header.id, wire::Checked{});
  } else {
    admit({frame.header.id, true}, frame.payload, submit);
  }
  return nullptr;
}

// Reads the request of a SUBMIT or a CHECK, now or beside the steps.
void Pool::admit(AdmitThread::Id id, std::string_view payload, const wire::Submit& submit) {
  auto storage = id.is_check && beside_ == nullptr ? nullptr : link_.keep();
  if (beside_ == nullptr || (payload.size() <= kShortBytes && beside_->idle())) {
    return admitted(id, engine_->admit(request_of(submit, std::move(storage))));
  }
  if (storage != nullptr) {
    return beside_->add(id, request_of(submit, std::move(storage)));
  }
  auto copy = std::make_shared<const std::string>(payload);
  wire::Submit copied;
  wire::parse(*copy, copied);
  beside_->add(id, request_of(copied, std::move(copy)));
}

void Pool::take_admitted() {
  if (beside_ != nullptr) {
    for (AdmitThread::Admitted& each : beside_->take()) {
      admitted(each.id, std::move(each.verdict));
    }
  }
}

void Pool::admitted(AdmitThread::Id id, Verdict verdict) {
  if (const auto* plan = std::get_if<std::unique_ptr<Plan>>(&verdict);
      plan != nullptr && options_.memory_bytes > 0 &&
      (*plan)->memory_bytes > options_.memory_bytes) {
    verdict = too_big((*plan)->memory_bytes, options_.memory_bytes);
  }
  id.is_check ? tell(id.number, verdict) : take_up(id.number, std::move(verdict));
}

// Why the request is refused as it stands is for its sender; what may pass is not said.
void Pool::tell(uint64_t check, const Verdict& verdict) {
  wire::Checked checked;
  const auto* failure = std::get_if<Failure>(&verdict);
  if (failure != nullptr && !failure->retryable && failure->status < 500) {
    checked = {.status = static_cast<uint64_t>(failure->status),
               .code = failure->code,
               .message = failure->message,
               .param = failure->param};
  }
  wire::append(link_.out(), check, checked);
  checked_ = true;
}

void Pool::take_up(JobNumber job, Verdict verdict) {
  if (const auto* failure = std::get_if<Failure>(&verdict)) {
    sink_.refuse(job, *failure);
    ++owed_;
    return;
  }
  auto plan = std::get<std::unique_ptr<Plan>>(std::move(verdict));
  const bool asks = options_.claims_memory && plan->memory_bytes > 0;
  if (asks) {
    wire::append(link_.out(), job, wire::Claim{static_cast<uint64_t>(plan->memory_bytes)});
  }
  waiting_.push_back({job, std::move(plan), options_.claims_memory && !asks});
}

// Of a job that was cancelled meanwhile it is given back.
void Pool::on_grant(JobNumber job, uint64_t bytes) {
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const Waiting& each) { return each.job == job; });
  if (found != waiting_.end()) {
    found->granted = true;
  } else {
    owed_bytes_ += bytes;
  }
}

void Pool::on_window(JobNumber job, uint64_t bytes) {
  if (sink_.widen(job, bytes)) {
    engine_->resume(job);
    prodded_ = true;
  }
}

bool Pool::is_held(JobNumber job) {
  return running_.contains(job) || leaving_.contains(job) ||
         (beside_ != nullptr && beside_->has({job, false})) ||
         std::any_of(waiting_.begin(), waiting_.end(),
                     [&](const Waiting& w) { return w.job == job; });
}

// A job that is not held has just ended: the CANCEL crossed its last frame.
void Pool::on_cancel(JobNumber job) {
  if (const auto found = running_.find(job); found != running_.end()) {
    if (!engine_->cancel(job)) {
      prodded_ = true;
      leaving_.insert(*found);
      running_.erase(found);
    }
    return forget(job);
  }
  if (beside_ != nullptr && beside_->drop({job, false})) {
    ++owed_;
    return;
  }
  owed_ += static_cast<uint32_t>(std::erase_if(waiting_, [&](const Waiting& waiting) {
    const bool same = waiting.job == job;
    owed_bytes_ += same && waiting.granted ? static_cast<uint64_t>(waiting.plan->memory_bytes) : 0;
    return same;
  }));
}

bool Pool::fits(const Plan& plan) const {
  return options_.memory_bytes == 0 || plan.memory_bytes <= options_.memory_bytes - memory_in_use_;
}

std::deque<Pool::Waiting>::iterator Pool::next_to_start() {
  if (options_.claims_memory) {
    return std::find_if(waiting_.begin(), waiting_.end(),
                        [](const Waiting& each) { return each.granted; });
  }
  return !waiting_.empty() && fits(*waiting_.front().plan) ? waiting_.begin() : waiting_.end();
}

// True if any job started. A slot is free for each: what is held here never exceeds the credit.
bool Pool::start_waiting() {
  bool any = false;
  for (auto at = next_to_start(); at != waiting_.end(); at = next_to_start()) {
    Waiting next = std::move(*at);
    waiting_.erase(at);
    running_.emplace(next.job, next.plan->memory_bytes);
    memory_in_use_ += next.plan->memory_bytes;
    engine_->start(next.job, std::move(next.plan));
    any = true;
  }
  return any;
}

void Pool::step(int64_t now_ns) {
  if (running_.empty() && engine_->wake_fd() < 0) {
    step_due_ns_ = Engine::kIdle;
  } else if (now_ns >= step_due_ns_ && !clogged()) {
    step_due_ns_ = engine_->step(now_ns);
  }
}

void Pool::collect_ended() {
  for (const JobNumber job : sink_.ended()) {
    forget(job);
  }
  sink_.ended().clear();
}

void Pool::collect_left() {
  for (const JobNumber job : sink_.gone()) {
    if (const auto found = leaving_.find(job); found != leaving_.end()) {
      give_back(found->second);
      leaving_.erase(found);
    }
  }
  sink_.gone().clear();
}

void Pool::pause_closed() {
  for (const JobNumber job : sink_.closed()) {
    engine_->pause(job);
  }
  sink_.closed().clear();
}

// Frees the job's slot and memory.
void Pool::forget(JobNumber job) {
  sink_.forget(job);
  const auto found = running_.find(job);
  if (found != running_.end()) {
    give_back(found->second);
    running_.erase(found);
  }
}

void Pool::give_back(int64_t memory_bytes) {
  memory_in_use_ -= memory_bytes;
  owed_bytes_ += options_.claims_memory ? static_cast<uint64_t>(memory_bytes) : 0;
  ++owed_;
}

void Pool::greet() {
  if (std::exchange(greeted_, true)) {
    return;
  }
  // A job's plan may also be too big for the budget, whatever it asks.
  const bool few = engine_->judges_completions_only() && options_.memory_bytes == 0;
  const auto checking = few ? wire::Checking::kCompletions : wire::Checking::kAll;
  const std::string chat = engine_->chat();
  wire::append(link_.out(), 0,
               wire::Hello{.version = wire::kVersion,
                           .role = static_cast<uint64_t>(wire::Role::kWorker),
                           .name = options_.name,
                           .model = options_.model,
                           .slots = options_.slots,
                           .checks = static_cast<uint64_t>(checking),
                           .chat = chat});
}

// For how long the thread beside has read one request.
uint64_t Pool::reading_ms(int64_t now_ns) const {
  const int64_t since_ns = beside_ == nullptr ? 0 : beside_->reading_since_ns();
  return since_ns == 0 || now_ns < since_ns ? 0
                                            : static_cast<uint64_t>((now_ns - since_ns) / kNsPerMs);
}

void Pool::report(int64_t now_ns) {
  std::string& out = link_.out();
  if ((owed_ > 0 || owed_bytes_ > 0) && !silent_) {
    wire::append(out, 0, wire::Take{owed_, owed_bytes_});
    granted_ += owed_;
    owed_ = 0;
    owed_bytes_ = 0;
  }
  if (now_ns >= heartbeat_due_ns_ && !clogged()) {
    const Figures figures = engine_->figures();
    heartbeat_ = {.running = running_.size(),
                  .memory_bytes = static_cast<uint64_t>(memory_in_use_),
                  .waiting = waiting(),
                  .steps = figures.steps,
                  .step_jobs = figures.step_jobs,
                  .prompt_tokens = figures.prompt_tokens,
                  .generation_tokens = figures.generation_tokens,
                  .kv_blocks = figures.kv_blocks,
                  .kv_blocks_used = figures.kv_blocks_used,
                  .step_ms = reading_ms(now_ns),
                  .server_running = figures.server_running,
                  .server_waiting = figures.server_waiting,
                  .context_tokens = figures.context_tokens};
    wire::append(out, 0, heartbeat_);
    heartbeat_due_ns_ = now_ns + options_.heartbeat_ns;
  }
}

Pool::Next Pool::outcome(int64_t now_ns) const {
  if (draining_ && running_.empty() && waiting() == 0 && link_.unsent_bytes() == 0) {
    return ended();
  }
  Next next;
  next.wants_write = link_.unsent_bytes() > 0;
  next.hears_engine = !clogged();
  next.wake_ns =
      clogged() ? now_ns + options_.heartbeat_ns : std::min(step_due_ns_, heartbeat_due_ns_);
  return next;
}

// penstockd closed or died: nobody is left to answer to.
Pool::Next Pool::gone() {
  for (const auto& [job, memory] : running_) {
    engine_->cancel(job);
  }
  running_.clear();
  waiting_.clear();
  return ended();
}

Pool::Next Pool::refused(const char* rule) {
  const std::string message = std::string("penstockd broke the protocol: ") + rule;
  gone();
  wire::append(link_.out(), 0, wire::Goodbye{message});
  link_.flush();
  return {.over = true, .exit_status = 1, .message = message};
}

}  // namespace penstock
