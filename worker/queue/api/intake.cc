#include "worker/queue/api/intake.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "shared/base/clock.h"
#include "worker/queue/api/models_answer.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/text/jobs_path.h"
#include "worker/queue/text/names.h"
#include "worker/queue/text/reply.h"
#include "worker/queue/text/seconds.h"

namespace penstock::queue {
namespace {

// Changes a field into a tag nobody knows, and wipes it. In place, so that a large body behind it
// is not moved.
void wipe(std::string& frame, const char* begin, std::string_view field) {
  if (!field.empty()) {
    const auto at = static_cast<size_t>(field.data() - begin);
    wire::write_field_header(frame.data() + at - wire::kFieldHeaderBytes, 0,
                             static_cast<uint32_t>(field.size()));
    std::fill_n(frame.begin() + static_cast<ptrdiff_t>(at), field.size(), '\0');
  }
}

// The frame as it is kept and as workers see it: they have no use for who asked, by which key, and
// what was charged.
// `frame` are the same bytes, where they are to stay.
std::string anonymous(const wire::Submit& submit, std::string_view bytes, std::string frame) {
  for (const std::string_view field :
       {submit.owner, submit.share, submit.idempotency_key, submit.callback, submit.receipt}) {
    wipe(frame, bytes.data(), field);
  }
  wire::FieldReader fields(bytes.substr(wire::kHeaderBytes));
  uint32_t tag = 0;
  for (std::string_view value; fields.next(tag, value);) {
    if (tag == wire::Submit::kDeadlineTag || tag == wire::Submit::kTraceTag) {  // ours to say, once
      wipe(frame, bytes.data(), value);
    }
  }
  return frame;
}

limit::Secret draw_secret() {
  limit::Secret secret;
  ssize_t got = 0;
  do {
    got = ::getrandom(&secret, sizeof secret, 0);
  } while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(sizeof secret)) {
    std::abort();
  }
  return secret;
}

bool is_completion(const wire::Submit& submit) { return submit.path.ends_with("/completions"); }

// In ns, of what a caller says.
int64_t milliseconds(uint64_t ms) {
  return static_cast<int64_t>(std::min<uint64_t>(ms, 1ULL << 40)) * kNsPerMs;
}

}  // namespace

Intake::Intake(Dispatcher& dispatcher, int64_t start_unix_s)
    : dispatcher_(dispatcher), start_unix_s_(start_unix_s), secret_(draw_secret()) {}

limit::Hash128 Intake::hash_of(std::string_view who, const limit::Secret& secret) {
  return who.empty() ? limit::Hash128{} : limit::siphash13_128(secret, who);
}

void Intake::submit(Caller& caller, uint64_t id, const wire::Submit& submit,
                    std::string_view bytes) {
  Order order;
  order.lane = route(caller, id, submit);
  if (order.lane == nullptr) {
    return;
  }
  if (submit.body.size() > static_cast<uint64_t>(dispatcher_.limits().max_body_bytes)) {
    return refuse_oversized(caller, id, submit.body.size());
  }
  JobOptions options;
  order.shared = dispatcher_.served().find(*order.lane->queue, submit.model) == nullptr
                     ? dispatcher_.shared(*order.lane->queue)
                     : dispatcher_.shared_now(*order.lane->queue);
  if (!read(caller, id, submit, order.shared != nullptr, options)) {
    return;
  }
  order.owner = hash_of(submit.owner, order.shared);
  order.share = submit.share.empty() ? order.owner : hash_of(submit.share, order.shared);
  order.entry = {.owner = order.share.lo,
                 .priority = submit.priority,
                 .cost = submit.cost,
                 .weight = submit.weight};
  order.async = options.async;
  order.reject = submit.on_duplicate == static_cast<uint64_t>(wire::OnDuplicate::kReject);
  order.record.not_before_ms = options.not_before_ms;
  order.completion = is_completion(submit);
  order.max_wait_ns = milliseconds(submit.max_wait_ms);
  order.start_within_ns = milliseconds(submit.start_within_ms);
  order.finish_within_ns = milliseconds(submit.finish_within_ms);
  hash_key(submit, options, order);
  hash_earlier(submit, order);
  if (!mind_local(caller, id, submit, options, order)) {
    return;
  }
  if (join(caller, id, submit, options, order) ||
      turn_away(caller, id, submit, options, order, bytes.size())) {
    return;
  }
  const bool spare = order.shared == nullptr && is_kept_for_others(order);
  if (order.async || order.durable || spare || order.shared != nullptr) {
    describe(submit, options, order.record);
    if (!order.async) {
      order.record.receipt.clear();  // what was charged is settled by the answer
    }
    order.record.owner = order.owner;
    order.record.share = order.share;
    order.record.queue = order.lane->queue->settings.name;
    order.record.model = order.lane->model;
  }
  Waiter& waiter = dispatcher_.subscribers().add(
      caller, id, options.async ? Waiter::Kind::kPromise : Waiter::Kind::kAnswer);
  waiter.wait_ns = options.wait_ns;
  if (options.async) {
    waiter.jobs_path = jobs_path_or_default(submit.jobs_path);
  }
  want_news(waiter, submit);
  const Traced traced{std::string(submit.headers), std::string(submit.path), submit.limited_us};
  Job& job = dispatcher_.let_in(waiter, order.owner, anonymous(submit, bytes, caller.take(bytes)));
  job.by_date = options.by_date;
  order.record.trace = dispatcher_.begin_trace(job, traced);
  order.record.created_ms = job.created_ms;
  if (order.record.digest != limit::Hash128{}) {
    dispatcher_.register_key(job, order.record.key, order.record.digest);
    job.keeps_answer = true;
  }
  if (spare) {
    order.record.key = order.record.earlier;
    job.keeps_answer = true;
  }
  order.durable && (order.shared == nullptr || order.may_be_local) ? look_up(job, std::move(order))
                                                                   : check(job, std::move(order));
}

Scheduler::Lane* Intake::route(Caller& caller, uint64_t id, const wire::Submit& submit) {
  const std::string_view name = submit.queue.empty() ? "default" : submit.queue;
  Scheduler::Queue* const queue = dispatcher_.scheduler().find_queue(name);
  if (queue == nullptr) {
    const std::string message = "There is no queue " + quoted(name) + ".";
    refuse(caller, id, {.status = 404, .code = "not_found", .message = message});
    return nullptr;
  }
  std::string_view model = submit.model;
  const auto asked = models_path(submit.path);
  const bool get = submit.method == "GET" || submit.method == "HEAD";
  if (get && asked) {
    model = *asked;
  } else if (!submit.method.empty() && submit.method != "POST") {
    const std::string message = "The method " + quoted(submit.method) +
                                (asked ? " is not allowed here; models are listed by GET."
                                       : " is not allowed here; jobs come by POST.");
    refuse(caller, id,
           {.status = 405,
            .code = "method_not_allowed",
            .message = message,
            .headers = asked ? "Allow: GET, HEAD\n" : "Allow: POST\n"});
    return nullptr;
  }
  const ServedModels& served = dispatcher_.served();
  Scheduler::Lane* lane = served.find(*queue, model);
  const SharedQueue* const shared = dispatcher_.shared(*queue);
  if (lane == nullptr && shared != nullptr) {
    if (const std::string* const known = shared->roster().find_model(model); known != nullptr) {
      lane = &dispatcher_.scheduler().lane(*queue, *known);
    }
  }
  if (lane == nullptr && shared != nullptr && shared->settles(monotonic_ns())) {
    const Refusal refusal{"The hosts that share the queue are yet to say what they serve." +
                              try_again(kAwayRetrySeconds),
                          kAwayRetrySeconds};
    refuse(caller, id, refusal.failed());
    return nullptr;
  }
  if (lane == nullptr) {
    const std::string message = "No worker of queue " + queue->settings.name + " serves model " +
                                quoted(model) + ". Models served: " + listed(models_of(*queue)) +
                                ".";
    refuse(caller, id, {.status = 404, .code = "not_found", .message = message, .param = "model"});
    return nullptr;
  }
  if (!get) {
    return lane;
  }
  if (!model.empty()) {
    append_model(caller.out(), id, describe(*lane), start_unix_s_);
    return nullptr;
  }
  std::vector<Model> models;
  for (const std::string_view each : models_of(*queue)) {
    models.push_back(describe(dispatcher_.scheduler().lane(*queue, each)));
  }
  append_models(caller.out(), id, models, start_unix_s_);
  return nullptr;
}

// That any host serves, or did a moment ago.
std::vector<std::string_view> Intake::models_of(const Scheduler::Queue& queue) const {
  const SharedQueue* const shared = dispatcher_.shared(queue);
  if (shared == nullptr) {
    return dispatcher_.served().models(queue);
  }
  std::vector<std::string_view> models;
  for (const auto* const all : {&shared->roster().models(), &shared->roster().models_away()}) {
    for (const HostSays::Model& model : *all) {
      if (std::find(models.begin(), models.end(), model.name) == models.end()) {
        models.push_back(model.name);
      }
    }
  }
  return models;
}

Model Intake::describe(const Scheduler::Lane& lane) const {
  const int64_t now_ns = dispatcher_.connections().now_ns();
  Model model{.id = lane.model, .context_tokens = lane.context_tokens, .kind = lane.kind};
  model.eta_reason = Subscribers::unknown_because(lane, now_ns);
  const Scheduler::Queue& queue = *lane.queue;
  const bool is_free = lane.all_hosts.shared
                           ? lane.all_hosts.running + lane.all_hosts.in_line < lane.all_hosts.slots
                           : queue.waiting + queue.running < dispatcher_.slots(queue);
  if (model.eta_reason.empty() && !is_free && !Subscribers::has_learned(lane)) {
    model.eta_reason = Subscribers::kLearning;
  }
  if (model.eta_reason.empty()) {
    const Scheduler::Foretold foretold = dispatcher_.scheduler().foretell(lane, now_ns);
    model.eta_seconds = seconds_up(foretold.wait_ns);
    model.eta_range = JobView::Range{foretold.soon_ns / kNsPerSec, seconds_up(foretold.late_ns)};
  }
  return model;
}

// What the headers ask for; false when that was refused.
bool Intake::read(Caller& caller, uint64_t id, const wire::Submit& submit, bool shared,
                  JobOptions& options) {
  std::optional<BadOption> bad = read_options(submit, dispatcher_.wall_ms(), options);
  if (!bad && !options.callback.empty()) {
    const Status good = check_callback ? check_callback(options.callback)
                                       : Error{"This service sends no webhooks."};
    if (!good) {
      bad = BadOption{"Penstock-Callback", good.error().message};
    }
  }
  if (!bad && options.async && !shared && dispatcher_.store() == nullptr) {
    if (options.not_before_ms == 0 && options.callback.empty()) {
      options.async = false;  // a preference, which it cannot be given
      options.wait_ns = 0;
      return true;
    }
    bad = BadOption{options.callback.empty() ? "Penstock-Delay" : "Penstock-Callback",
                    "This service keeps no jobs: it has nowhere to put them."};
  }
  if (bad) {
    refuse(
        caller, id,
        {.status = 400, .code = "invalid_request", .message = bad->message, .param = bad->header});
  }
  return !bad;
}

void Intake::describe(const wire::Submit& submit, const JobOptions& options, JobRecord& record) {
  record.tier = submit.tier;
  record.priority = submit.priority;
  record.weight = submit.weight;
  record.cost = submit.cost;
  record.jobs_path = jobs_path_or_default(submit.jobs_path);
  record.callback = options.callback;
  record.label = options.label;
  record.receipt = submit.receipt;
  record.not_before_ms = options.not_before_ms;
  record.status = options.not_before_ms != 0 ? JobStatus::kScheduled : JobStatus::kQueued;
}

// Who waits for the answer itself is told of a fault by the worker that the job is given to.
void Intake::check(Job& job, Order order) {
  const SharedBytes frame = job.more->frame;
  WorkerSession* const worker =
      order.async ? dispatcher_.checker(*order.lane, order.completion, frame.size()) : nullptr;
  if (worker == nullptr) {
    return start(job, std::move(order));
  }
  job.looking_up = true;
  dispatcher_.checks().ask(
      *worker, frame,
      [this, id = job.id(), order = std::move(order)](const wire::Checked* refusal) mutable {
        checked(id, std::move(order), refusal);
      });
}

void Intake::checked(const JobId& id, Order order, const wire::Checked* refusal) {
  Job* const job = dispatcher_.find(id);
  if (job == nullptr) {
    return;  // those who asked have left
  }
  job->looking_up = false;
  if (refusal != nullptr) {
    return refuse_all(*job, {.status = refusal->status,
                             .code = refusal->code,
                             .message = refusal->message,
                             .param = refusal->param});
  }
  if (const auto full = busy(order, 0)) {
    return turn_away(*job, order, full->failed());
  }
  start(*job, std::move(order));
}

void Intake::want_news(Waiter& waiter, const wire::Submit& submit) {
  if (submit.news_ms == 0 || waiter.kind != Waiter::Kind::kAnswer) {
    return;
  }
  auto news = std::make_unique<QueueNews>();
  news->every_ns = milliseconds(submit.news_ms);
  news->events = submit.news_events != 0;
  news->completion = is_completion(submit);
  news->jobs_path = jobs_path_or_default(submit.jobs_path);
  dispatcher_.subscribers().want_news(waiter, std::move(news));
}

void Intake::refuse_all(Job& job, const wire::Failed& failed) {
  for (Waiter* waiter = job.waiters(); waiter != nullptr; waiter = waiter->next) {
    refuse(*waiter->caller, waiter->id, failed);
  }
  dispatcher_.forget(job);
}

void Intake::start(Job& job, Order&& order) {
  const int64_t now_ns = dispatcher_.connections().now_ns();
  if (order.record.not_before_ms != 0) {
    order.entry.not_before_ns =
        now_ns + (order.record.not_before_ms - dispatcher_.wall_ms()) * kNsPerMs;
  }
  set_deadlines(job, order);
  if (order.shared != nullptr) {
    job.looking_up = true;
    job.extra().keep = std::make_unique<JobRecord>(std::move(order.record));
    job.more->keep->id = job.id();
    job.more->receipt = std::move(job.more->keep->receipt);
    job.more->label = job.more->keep->label;
    return share(job.id(), order);
  }
  dispatcher_.enqueue(job, *order.lane, order.entry);
  if (order.async) {
    if (!order.durable) {
      order.record.key = {};  // only a client's own key is kept
    }
    return dispatcher_.promise(job, std::move(order.record));
  }
  if (order.durable || order.record.is_spare()) {
    job.more->keep = std::make_unique<JobRecord>(std::move(order.record));
  }
  for (Waiter* waiter = job.waiters(); waiter != nullptr; waiter = waiter->next) {
    dispatcher_.replies().accepted(*waiter, job, job.worker() != nullptr);
  }
}

void Intake::refuse(Caller& caller, uint64_t id, const wire::Failed& failed) {
  dispatcher_.note_refused();
  wire::append(caller.out(), id, failed);
}

void Intake::refuse_crowded(Caller& caller, uint64_t id) {
  refuse(caller, id,
         Refusal{"Too many jobs are in flight on this connection; at most 1024 are.", 1}.failed());
}

bool Intake::has_room_for(uint64_t bytes) const {
  const uint64_t on_the_way = dispatcher_.connections().unfinished_bytes();
  return static_cast<uint64_t>(dispatcher_.frame_bytes()) + on_the_way + bytes <=
         static_cast<uint64_t>(dispatcher_.limits().max_held_bytes);
}

void Intake::refuse_for_memory(Caller& caller, uint64_t id) {
  constexpr int64_t kRetrySeconds = 2;
  const Refusal refusal{
      "As many requests are held as there is memory for." + try_again(kRetrySeconds),
      kRetrySeconds};
  refuse(caller, id, refusal.failed());
}

void Intake::refuse_oversized(Caller& caller, uint64_t id, uint64_t bytes) {
  const std::string message = fmt::format("The body has {} bytes; at most {} are taken.", bytes,
                                          dispatcher_.limits().max_body_bytes);
  refuse(caller, id, {.status = 413, .code = "too_large", .message = message});
}

}  // namespace penstock::queue
