#include "worker/queue/api/operator_api.h"

#include <fmt/format.h>
#include <algorithm>
#include <charconv>
#include <functional>

#include "shared/base/utf8.h"
#include "shared/http/query.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/text/base64.h"
#include "worker/queue/text/json.h"
#include "worker/queue/text/log.h"
#include "worker/queue/text/names.h"
#include "worker/queue/text/reply.h"
#include "worker/queue/traces/job_trace.h"

namespace penstock::queue {
namespace {

constexpr size_t kMaxSegments = 4;

// "/dead/ID/requeue" in parts; none when it is no such path.
std::vector<std::string_view> parts_of(std::string_view path) {
  std::vector<std::string_view> parts;
  while (path.starts_with('/') && parts.size() < kMaxSegments) {
    path.remove_prefix(1);
    parts.push_back(path.substr(0, path.find('/')));
    path.remove_prefix(parts.back().size());
  }
  return path.empty() ? parts : std::vector<std::string_view>();
}

void refuse(Caller& caller, uint64_t id, uint64_t status, const std::string& message,
            std::string_view param = {}, std::string_view headers = {}) {
  const char* const code = status == 404   ? "not_found"
                           : status == 405 ? "method_not_allowed"
                                           : "invalid_request";
  wire::append(
      caller.out(), id,
      wire::Failed{
          .status = status, .code = code, .message = message, .param = param, .headers = headers});
}

void answer(Caller& caller, uint64_t id, const std::string& json) {
  append_reply(caller.out(), id,
               {.status = 200, .content_type = kJson, .headers = "Cache-Control: no-store\n"},
               json);
}

std::string queue_json(const Scheduler::Queue& queue) {
  return JsonObject()
      .text("object", "queue")
      .text("name", queue.settings.name)
      .boolean("paused", queue.paused)
      .number("waiting", queue.waiting)
      .number("running", queue.running)
      .done();
}

// The job's request, of its SUBMIT frame.
std::string request_json(std::string_view frame) {
  const wire::Limits any{.submit_bytes = UINT32_MAX};
  const wire::Decoded decoded = wire::decode(frame, any);
  wire::Submit submit;
  if (decoded.kind != wire::Decoded::kFrame ||
      decoded.frame.header.type != wire::FrameType::kSubmit ||
      wire::parse(decoded.frame.payload, submit) != nullptr) {
    return "null";
  }
  std::string_view body = submit.body.substr(0, OperatorApi::kMostShownBytes);
  const bool whole = body.size() == submit.body.size();
  const std::string_view text = whole ? body : body.substr(0, utf8_complete_prefix(body));
  const bool is_text = utf8_first_invalid(text) == text.npos;
  return JsonObject()
      .text("method", submit.method)
      .text("path", submit.path)
      .text("content_type", submit.content_type)
      .number("body_bytes", static_cast<int64_t>(submit.body.size()))
      .boolean("truncated", !whole)
      .text(is_text ? "body" : "body_base64", is_text ? std::string(text) : base64(body))
      .done();
}

}  // namespace

bool OperatorApi::is_for_viewers(const wire::Ask& ask) const {
  if (is_order(ask)) {
    return false;
  }
  const Path path = parts_of(ask.path);
  const std::string_view about = path.empty() ? "" : path.front();
  return is_status(ask) || (about == "jobs" && path.size() == 1) ||
         (about == "jobs" && path.size() == 2 && path[1] != "events") ||
         (about == "dead" && path.size() == 1);
}

void OperatorApi::ask(Caller& caller, uint64_t id, const wire::Ask& ask) {
  const Path path = parts_of(ask.path);
  const std::string_view about = path.empty() ? "" : path.front();
  if (is_order(ask)) {
    note_order(caller, ask);
  }
  if (is_status(ask)) {
    return answer(caller, id, reports_.find(ask.path)->second());
  }
  if (about == "orders" && path.size() == 1 && ask.method == "GET") {
    return answer(caller, id, orders_json());
  }
  if (about == "changes" && path.size() == 1 && ask.method == "GET") {
    return answer(caller, id, changes ? changes() : "{}");
  }
  if (about == "backup" && path.size() == 1) {
    return about_backup({caller, id}, ask.method);
  }
  if (about == "upgrade" && path.size() == 1 && upgrade) {
    return about_upgrade({caller, id}, ask.method);
  }
  if (about == "predictions" && path.size() == 1 && ask.method == "GET") {
    return answer(caller, id, dispatcher_.predictions().json());
  }
  if (about == "usage" && path.size() == 1 && ask.method == "GET") {
    return about_usage({caller, id}, ask);
  }
  if (about == "jobs" && path.size() == 3 && path[2] == "replay" && ask.method == "POST") {
    return replay({caller, id}, path[1], ask.query);
  }
  if (about == "jobs") {
    wire::Ask stripped = ask;
    stripped.path.remove_prefix(sizeof("/jobs") - 1);
    return jobs_api_.ask(caller, id, stripped);
  }
  if (about == "dead" && path.size() <= 3) {
    return about_dead({caller, id}, path, ask);
  }
  const bool queue = about == "queues" && path.size() == 3;
  const bool worker = about == "workers" && (path.size() == 2 || path.size() == 3);
  if ((queue || worker) && ask.method != "POST") {
    return refuse(caller, id, 405, "That is done by POST.", {}, "Allow: POST\n");
  }
  if (queue) {
    return about_queue({caller, id}, path);
  }
  if (worker) {
    return about_workers({caller, id}, path, ask);
  }
  refuse(caller, id, 404,
         "There is nothing at " + quoted(ask.path) +
             ". There are /status, /cluster, /history, /orders, /changes, /backup, /upgrade, "
             "/predictions, /usage, /jobs, /dead, "
             "/queues/NAME/pause, "
             "/queues/NAME/resume, "
             "/workers/NAME/drain, /workers/NAME/scale and /workers/drain.");
}

// ---- orders that were given ----

void OperatorApi::note_order(const Caller& caller, const wire::Ask& ask) {
  const std::string who =
      (ask.owner.empty() ? std::string() : quoted(ask.owner) + ", by ") + caller.peer().text();
  const std::string text = std::string(ask.method) + " " + std::string(ask.path) +
                           (ask.query.empty() ? "" : "?") + std::string(ask.query);
  note_change(who, text);
}

void OperatorApi::note_change(std::string who, std::string what) {
  given_.push_front({dispatcher_.wall_ms(), std::move(who), std::move(what)});
  if (given_.size() > kKeptOrders) {
    given_.pop_back();
  }
}

std::string OperatorApi::orders_json() const {
  JsonList orders;
  for (const Given& order : given_) {
    orders.add(JsonObject()
                   .number("at", order.at_ms / 1000)
                   .text("who", order.who)
                   .text("order", order.text)
                   .done());
  }
  return JsonObject().raw("orders", orders.done()).done();
}

// ---- dead letters ----

void OperatorApi::about_dead(Asker asker, const Path& path, const wire::Ask& ask) {
  if (path.size() == 1) {
    return ask.method == "GET"
               ? jobs_api_.list_dead(asker.caller, asker.id, ask)
               : refuse(asker.caller, asker.id, 405, "The dead letters are listed by GET /dead.",
                        {}, "Allow: GET\n");
  }
  if (path.size() == 2 && ask.method == "GET") {
    return find_dead(asker, path[1], {&OperatorApi::show, &OperatorApi::show_shared});
  }
  if (path.size() == 2 && ask.method == "DELETE") {
    return find_dead(asker, path[1], {&OperatorApi::drop, &OperatorApi::drop_shared});
  }
  if (path.size() == 3 && path[2] == "requeue" && ask.method == "POST") {
    return find_dead(asker, path[1], {&OperatorApi::requeue, &OperatorApi::requeue_shared});
  }
  refuse(asker.caller, asker.id, 405,
         "A dead letter is seen by GET /dead/ID, dropped by DELETE /dead/ID and queued again by "
         "POST /dead/ID/requeue.",
         {}, path.size() == 2 ? "Allow: GET, DELETE\n" : "Allow: POST\n");
}

void OperatorApi::find_dead(Asker asker, std::string_view id, Deed deed) {
  const auto job_id = parse_job_id(id);
  if (!job_id) {
    return refuse(asker.caller, asker.id, 400,
                  quoted(id) + " is no job's id: these are job_ and 26 letters and digits.", "id");
  }
  Waiter& waiter = dispatcher_.subscribers().add(asker.caller, asker.id, Waiter::Kind::kQuestion);
  if (dispatcher_.store() == nullptr) {
    return find_shared(waiter, *job_id, deed);
  }
  Subscribers::ask(waiter);
  dispatcher_.store()->find(
      *job_id, [this, &waiter, deed, id = *job_id](const std::optional<JobRecord>& job) {
        if (!dispatcher_.subscribers().answered(waiter)) {
          return;
        }
        if (!job || !job->end.dead) {
          return find_shared(waiter, id, deed);
        }
        (this->*deed.here)(waiter, *job);
      });
}

void OperatorApi::fail_none(Waiter& waiter) {
  fail(waiter, {.status = 404,
                .code = "not_found",
                .message = "There is no dead letter of that id; GET /dead lists those there are."});
}

void OperatorApi::show(Waiter& waiter, const JobRecord& job) {
  Subscribers::ask(waiter);
  dispatcher_.store()->fetch(job.id, [this, &waiter, job](const Result<std::string>& frame) {
    if (dispatcher_.subscribers().answered(waiter)) {
      say_dead(waiter, job, frame ? *frame : std::string());
    }
  });
}

void OperatorApi::say_dead(Waiter& waiter, const JobRecord& job, std::string_view frame) {
  const std::string seen = render(operator_view_of(job));
  reply(waiter, seen.substr(0, seen.size() - 1) + R"(,"request":)" + request_json(frame) + "}");
}

// It comes back whether whoever wanted it still listens or not.
void OperatorApi::requeue(Waiter& waiter, const JobRecord& job) {
  const Scheduler::Queue* const queue = dispatcher_.scheduler().find_queue(job.queue);
  if (queue == nullptr) {
    const std::string message = "Its queue " + quoted(job.queue) +
                                " is not there any more; put it back into penstock.yaml first.";
    return fail(waiter, {.status = 409, .code = "invalid_request", .message = message});
  }
  const int64_t deadline_ms = dispatcher_.wall_ms() + queue->settings.deadline_ns / kNsPerMs;
  Subscribers::ask(waiter);
  dispatcher_.store()->requeue(
      job.id, deadline_ms, renewed_trace(job.trace, ulid_of(job.id), dispatcher_.wall_ms()),
      [this, &waiter](std::optional<JobRecord> again) {
        if (again) {
          log(Level::kInfo, "job " + std::string(again->id.view()) + ": queued again");
          dispatcher_.restore(JobRecord(*again));
        }
        if (!dispatcher_.subscribers().answered(waiter)) {
          return;
        }
        if (!again) {
          return fail(
              waiter,
              {.status = 404, .code = "not_found", .message = "It is no dead letter any more."});
        }
        reply(waiter, render(jobs_api_.operator_view(*again)));
      });
}

void OperatorApi::drop(Waiter& waiter, const JobRecord& job) {
  Subscribers::ask(waiter);
  dispatcher_.store()->drop(job.id, [this, &waiter, id = job.id](bool dropped) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    reply(waiter, JsonObject()
                      .text("id", id.view())
                      .text("object", "job")
                      .boolean("dropped", dropped)
                      .done());
  });
}

void OperatorApi::fail(Waiter& waiter, const wire::Failed& failed) {
  wire::append(waiter.caller->out(), waiter.id, failed);
  dispatcher_.subscribers().leave(waiter);
}

void OperatorApi::reply(Waiter& waiter, const std::string& json) {
  answer(*waiter.caller, waiter.id, json);
  dispatcher_.subscribers().leave(waiter);
}

// ---- queues ----

void OperatorApi::about_queue(Asker asker, const Path& path) {
  Scheduler::Queue* const queue = dispatcher_.scheduler().find_queue(path[1]);
  if (queue == nullptr) {
    return refuse(asker.caller, asker.id, 404,
                  "There is no queue " + quoted(path[1]) + ". Queues: " +
                      listed(dispatcher_.scheduler().queues(),
                             [](const Scheduler::Queue& each) {
                               return each.retired ? std::string_view() : each.settings.name;
                             }) +
                      ".");
  }
  if (path[2] != "pause" && path[2] != "resume") {
    return refuse(asker.caller, asker.id, 404, "A queue has /pause and /resume.");
  }
  const bool pause = path[2] == "pause";
  if (SharedQueue* const shared = dispatcher_.shared(*queue); shared != nullptr) {
    return pause_everywhere(asker, *queue, *shared, pause);
  }
  pause ? dispatcher_.pause(*queue) : dispatcher_.resume(*queue);
  orders_.paused(queue->settings.name, queue->paused);
  log(Level::kInfo, "queue " + queue->settings.name + (queue->paused ? ": paused" : ": resumed"));
  answer(asker.caller, asker.id, queue_json(*queue));
}

// Redis keeps it, and all hosts hear of it.
void OperatorApi::pause_everywhere(Asker asker, Scheduler::Queue& queue, SharedQueue& shared,
                                   bool pause) {
  Waiter& waiter = dispatcher_.subscribers().add(asker.caller, asker.id, Waiter::Kind::kQuestion);
  Subscribers::ask(waiter);
  const auto told = [this, &waiter, &queue, &shared, pause](const SharedOrder::Answer<bool>& done) {
    if (done && queue.paused != pause) {
      pause ? dispatcher_.pause(queue) : dispatcher_.resume(queue);
      log(Level::kInfo,
          "queue " + shared.name() + (pause ? ": paused" : ": resumed") + " on all hosts");
    }
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    if (!done) {
      return fail(waiter, {.status = 503,
                           .code = "busy",
                           .message = "The hosts' Redis does not answer: ask again.",
                           .retry_after_s = 2});
    }
    reply(waiter, queue_json(queue));
  };
  if (!shared.pause(pause, told)) {
    SharedOrder::Answer<bool> none;
    none.trouble = SharedOrder::Trouble::kUnknown;
    told(none);
  }
}

// ---- workers ----

void OperatorApi::about_workers(Asker asker, const Path& path, const wire::Ask& ask) {
  if (path.size() == 2 && path[1] == "drain") {
    JsonList names;
    for (const WorkerConfig& worker : supervisor_.configured()) {
      names.add(json_string(worker.name));
    }
    for (const WorkerConfig& worker : supervisor_.configured()) {
      supervisor_.drain(worker.name);
      orders_.scaled(worker.name, 0);
    }
    return answer(asker.caller, asker.id,
                  JsonObject().text("object", "workers").raw("draining", names.done()).done());
  }
  const WorkerConfig* const worker = supervisor_.find(path[1]);
  if (worker == nullptr) {
    return refuse(asker.caller, asker.id, 404,
                  "There is no worker " + quoted(path[1]) + ". Workers: " +
                      listed(supervisor_.configured(), std::mem_fn(&WorkerConfig::name)) + ".");
  }
  const std::string_view what = path.size() == 3 ? path[2] : "";
  if (what == "scale") {
    return scale(asker, *worker, ask.query);
  }
  if (what != "drain") {
    return refuse(asker.caller, asker.id, 404, "A worker has /drain and /scale?n=N.");
  }
  supervisor_.drain(worker->name);
  orders_.scaled(worker->name, 0);
  answer(asker.caller, asker.id,
         JsonObject()
             .text("object", "worker")
             .text("name", worker->name)
             .number("processes", 0)
             .done());
}

void OperatorApi::scale(Asker asker, const WorkerConfig& worker, std::string_view query) {
  const uint32_t most = scaling_of(worker).most();
  auto parsed = http::Query::parse(query);
  const std::string_view text = parsed ? parsed->get("n").value_or("") : "";
  uint32_t n = 0;
  if (text == "auto") {
    supervisor_.forget_order(worker.name);
    orders_.scaled(worker.name, std::nullopt);
    return answer(asker.caller, asker.id,
                  JsonObject()
                      .text("object", "worker")
                      .text("name", worker.name)
                      .number("processes", supervisor_.processes_of(worker))
                      .number("slots", worker.slots)
                      .done());
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || n > most) {
    return refuse(asker.caller, asker.id, 400,
                  fmt::format("n is a number of processes from 0 to {}: each needs one of the {} "
                              "slots that worker '{}' has; or auto: as penstock.yaml says, or its "
                              "load.",
                              most, worker.slots, worker.name),
                  "n");
  }
  supervisor_.scale(worker.name, n);
  orders_.scaled(worker.name, n);
  answer(asker.caller, asker.id,
         JsonObject()
             .text("object", "worker")
             .text("name", worker.name)
             .number("processes", n)
             .number("slots", n == 0 ? 0 : worker.slots)
             .done());
}

}  // namespace penstock::queue
