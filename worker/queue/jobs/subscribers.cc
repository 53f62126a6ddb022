#include "worker/queue/jobs/subscribers.h"

#include <algorithm>

#include "shared/base/utf8.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/jobs/job_spans.h"
#include "worker/queue/text/json.h"
#include "worker/queue/text/reply.h"
#include "worker/queue/text/seconds.h"

namespace penstock::queue {

using Kind = Waiter::Kind;

namespace {

// Of the answer in one event: whatever JSON makes of it (six bytes of one at most), the event is
// one frame, within which the edge lets no pong go.
constexpr size_t kMostText = 32U << 10;
static_assert(6 * kMostText + 1024 <= wire::kMaxChunkBytes);

// In whole seconds: what is foretold is between them.
void foretell(JobView& view, const Scheduler::Foretold& foretold) {
  view.eta_seconds = seconds_up(foretold.wait_ns);
  view.eta_range = JobView::Range{foretold.soon_ns / kNsPerSec, seconds_up(foretold.late_ns)};
}

}  // namespace

Waiter& Subscribers::add(Caller& caller, uint64_t id, Kind kind) {
  Waiter& waiter = waiters_.emplace_back();
  waiter.self = std::prev(waiters_.end());
  waiter.caller = &caller;
  waiter.id = id;
  waiter.kind = kind;
  timers_.set(waiter, connections_.now_ns() + kSignOfLifeNs);
  caller.remember(waiter);
  return waiter;
}

void Subscribers::join(Waiter& waiter, Job& job) {
  waiter.job = &job;
  waiter.next = std::exchange(job.extra().waiters, &waiter);
}

void Subscribers::detach(Waiter& waiter) {
  if (waiter.job == nullptr) {
    return;
  }
  Waiter** link = &waiter.job->more->waiters;
  while (*link != &waiter) {
    link = &(*link)->next;
  }
  *link = waiter.next;
  waiter.job = nullptr;
}

void Subscribers::leave(Waiter& waiter) {
  detach(waiter);
  timers_.erase(waiter);
  if (waiter.caller != nullptr) {
    waiter.caller->forget(waiter);
    waiter.caller = nullptr;
  }
  if (waiter.asking == 0) {
    waiters_.erase(waiter.self);
  }
}

void Subscribers::set_wait(Waiter& waiter) {
  timers_.set(waiter, std::min(connections_.now_ns() + kSignOfLifeNs, waiter.wait_ends_ns));
}

bool Subscribers::answered(Waiter& waiter) {
  --waiter.asking;
  if (waiter.caller != nullptr) {
    return true;
  }
  if (waiter.asking == 0) {
    waiters_.erase(waiter.self);
  }
  return false;
}

bool Subscribers::wanted(const Job& job) {
  for (const Waiter* waiter = job.waiters(); waiter != nullptr; waiter = waiter->next) {
    if (waiter->kind != Kind::kEvents) {
      return true;
    }
  }
  return false;
}

bool Subscribers::has_late(const Job& job) {
  for (const Waiter* waiter = job.waiters(); waiter != nullptr; waiter = waiter->next) {
    if (waiter->kind == Kind::kPromise) {
      return true;
    }
  }
  return false;
}

JobStatus Subscribers::status_of(const Job& job) {
  using State = Scheduler::Ticket::State;
  if (job.ending || job.state() == State::kRunning || (job.away && job.more->position == 0)) {
    return JobStatus::kProcessing;
  }
  return job.state() == State::kScheduled ? JobStatus::kScheduled : JobStatus::kQueued;
}

std::string_view Subscribers::unknown_because(const Scheduler::Lane& lane, int64_t now_ns) {
  if (lane.queue->paused) {
    return "paused";
  }
  const bool any = &lane == &lane.queue->any_model();
  if (const AllHosts& all = lane.all_hosts; all.shared) {
    return all.slots > 0                                  ? ""
           : all.attending > 0 && all.workers > all.ready ? "loading"
                                                          : "no_worker";
  }
  bool starting = false;
  for (const auto& each : lane.queue->lanes) {
    const bool serves = (any && each.get() != &lane) || each.get() == &lane;
    const bool expected = each->opens_ns > now_ns && each->opens_ns != INT64_MAX;
    if (serves && (each->capacity > 0 || expected)) {
      return {};
    }
    starting = starting || (serves && each->starting);
  }
  return starting ? "loading" : "no_worker";
}

bool Subscribers::has_learned(const Scheduler::Lane& lane) {
  return lane.all_hosts.shared ? lane.all_hosts.known()
                               : lane.service.known() || lane.queue->any_model().service.known();
}

void Subscribers::say_wait(JobView& view, const Scheduler::Lane& lane, int64_t now_ns) {
  view.eta_reason = unknown_because(lane, now_ns);
  if (view.eta_reason.empty() && has_learned(lane)) {
    foretell(view, Scheduler::foretell_at(lane, view.position));
  } else if (view.eta_reason.empty()) {
    view.eta_reason = kLearning;
  }
}

int64_t Subscribers::wait_ns(const Job& job) const {
  if (job.home() == nullptr || job.ending || job.home()->queue->paused) {
    return 0;
  }
  return job.away ? job.home()->all_hosts.wait_ns(job.more->position)
                  : scheduler_.predicted_wait_ns(job, connections_.now_ns());
}

int64_t Subscribers::poll_after_s(const JobView& view) const {
  constexpr int64_t kUnknownSeconds = 20;  // to go
  constexpr int64_t kMsPerSec = 1000;
  if (view.status == JobStatus::kScheduled) {
    return queue::poll_after_s((view.not_before_ms - wall_ms_()) / kMsPerSec);
  }
  const bool unknown = view.status == JobStatus::kQueued && !view.eta_reason.empty();
  return queue::poll_after_s(view.eta_seconds.value_or(unknown ? kUnknownSeconds : 0));
}

JobView Subscribers::view(const Job& job, std::string_view jobs_path) const {
  using State = Scheduler::Ticket::State;
  const int64_t now_ns = connections_.now_ns();
  const int64_t now_ms = wall_ms_();
  JobView view{.id = job.id(), .jobs_path = jobs_path, .attempts = job.attempts()};
  view.created_ms = job.created_ms;
  if (job.home() == nullptr) {
    return view;  // its key is still being looked up
  }
  view.queue = job.home()->queue->settings.name;
  view.model = job.home()->model;
  view.label = job.more == nullptr ? std::string_view() : job.more->label;
  view.trace_id = trace_id_of(job);
  if (job.ending) {
    view.status = JobStatus::kProcessing;  // until its end is on disk
    return view;
  }
  if (job.away) {
    view.position = job.more->position;
    view.status = view.position == 0 ? JobStatus::kProcessing : JobStatus::kQueued;
    if (job.more->has_progress) {
      view.progress = job.more->progress;
      view.step = job.more->step;
      view.steps = job.more->steps;
    }
    if (job.more->keep != nullptr && job.more->keep->not_before_ms > now_ms) {
      view.status = JobStatus::kScheduled;
      view.not_before_ms = job.more->keep->not_before_ms;
    } else if (view.position > 0) {
      say_wait(view, *job.home(), now_ns);
    }
    return view;
  }
  const bool known = has_learned(*job.home());
  switch (job.state()) {
    case State::kScheduled:
      view.status = JobStatus::kScheduled;
      view.not_before_ms = now_ms + (job.arrived_ns() - now_ns) / kNsPerMs;
      break;
    case State::kRunning: {
      view.status = JobStatus::kProcessing;
      view.started_ms = now_ms - (now_ns - job.started_ns()) / kNsPerMs;
      const bool told = job.more != nullptr && job.more->has_progress;
      if (told) {
        view.progress = job.more->progress;
        view.step = job.more->step;
        view.steps = job.more->steps;
      }
      if (known || told) {
        foretell(view, scheduler_.foretell_end(job, now_ns, told ? job.more->progress : 0));
      }
      break;
    }
    default:
      view.status = JobStatus::kQueued;
      view.position = scheduler_.position(job);
      view.ahead_by_class = scheduler_.ahead_by_class(job);
      view.eta_reason = unknown_because(*job.home(), now_ns);
      if (known && view.eta_reason.empty()) {
        foretell(view, scheduler_.foretell(job, now_ns));
      } else if (view.eta_reason.empty()) {
        view.eta_reason = kLearning;
      }
  }
  return view;
}

EventId Subscribers::event_id(const Job& job, uint64_t offset) const {
  if (job.shared || job.away) {  // by which all hosts know it
    return {shared_run(job.more->fence, job.more->restarts), offset};
  }
  const bool runs = job.state() == Scheduler::Ticket::State::kRunning;
  return {runs ? static_cast<uint64_t>(job.started_ns() / kNsPerMs) : 0, offset};
}

EventStream Subscribers::stream(Waiter& waiter) const {
  return {waiter.caller->out(), waiter.id, waiter.websocket};
}

void Subscribers::say_state(Waiter& waiter, const JobView& view) {
  JobView now = view;
  now.moved = waiter.told.moved(view);
  const bool ended = has_ended(view.status);
  const EventId id = ended || waiter.job == nullptr ? EventId{.ended = ended}
                                                    : event_id(*waiter.job, waiter.told_bytes);
  stream(waiter).event(name_of(view.status), id, render(now));
  waiter.told_ns = connections_.now_ns();
  waiter.told = ToldWait::of(view, waiter.told_ns);
  waiter.progress_due = false;
  const bool moves = view.status == JobStatus::kQueued || view.status == JobStatus::kScheduled;
  timers_.set(waiter, waiter.told_ns + (moves ? kPositionNs : kKeepAliveNs));
}

void Subscribers::say_answer(Waiter& waiter) {
  const Job& job = *waiter.job;
  if (job.keeps_answer && !waiter.caller->clogged()) {
    say_text(waiter, job.more->answer, event_id(job, 0).run);
    drop_if_slow(waiter);
  }
}

void Subscribers::say_text(Waiter& waiter, const Answer& answer, uint64_t run) {
  while (answer.is_text()) {
    const std::string_view rest = answer.from(waiter.told_bytes);
    const std::string_view some = rest.substr(0, kMostText);
    const std::string_view text = some.substr(0, utf8_complete_prefix(some));
    if (text.empty()) {
      break;
    }
    const uint64_t offset = answer.bytes - rest.size();
    waiter.told_bytes = offset + text.size();
    waiter.told_ns = connections_.now_ns();
    stream(waiter).event("chunk", EventId{.run = run, .offset = waiter.told_bytes},
                         chunk_json(offset, text));
  }
}

void Subscribers::begin_stream(Waiter& waiter) {
  wire::append(waiter.caller->out(), waiter.id,
               wire::Head{.status = waiter.websocket ? 101U : 200U,
                          .content_type = waiter.websocket ? "" : "text/event-stream"});
  stream(waiter).begin();
}

void Subscribers::begin_events(Waiter& waiter, const Job& job, const EventId& last) {
  begin_stream(waiter);
  if (last.run != 0 && last.run == event_id(job, 0).run) {
    waiter.told_bytes = last.offset;
  }
  const JobView now = view(job, waiter.jobs_path);
  say_state(waiter, now);
  say_preview(waiter, job);
  say_answer(waiter);
}

void Subscribers::tell_state(Job& job) {
  each(job, Kind::kEvents, [&](Waiter& waiter) {
    waiter.told_bytes = 0;
    const JobView now = view(job, waiter.jobs_path);
    say_state(waiter, now);
    drop_if_slow(waiter);
  });
}

void Subscribers::tell_progress(Job& job) {
  each(job, Kind::kEvents, [&](Waiter& waiter) {
    waiter.progress_due = true;
    timers_.set(waiter, waiter.told_ns + kProgressNs);
  });
}

// Where it can be had. Whoever reads slowly is told of a later one.
void Subscribers::tell_preview(Job& job) {
  each(job, Kind::kEvents, [&](Waiter& waiter) { say_preview(waiter, job); });
}

void Subscribers::say_preview(Waiter& waiter, const Job& job) const {
  if (job.more != nullptr && job.more->preview != nullptr && !waiter.caller->clogged()) {
    const std::string number = std::to_string(job.more->preview->number);
    const std::string url = std::string(waiter.jobs_path) + "/" + std::string(job.id().view()) +
                            "/preview?number=" + number;
    stream(waiter).event("preview", event_id(job, waiter.told_bytes),
                         JsonObject()
                             .text("url", url)
                             .number("number", job.more->preview->number)
                             .number("step", job.more->step)
                             .done());
  }
}

void Subscribers::tell_answer(Job& job) {
  each(job, Kind::kEvents, [&](Waiter& waiter) { say_answer(waiter); });
}

void Subscribers::tell_rest(Job& job, bool same) {
  each(job, Kind::kEvents, [&](Waiter& waiter) {
    const uint64_t bytes = job.more->answer.bytes;
    const uint64_t told = same ? waiter.told_bytes : 0;
    waiter.told_bytes = std::max(told, bytes - std::min(bytes, kMostRest));
    say_answer(waiter);
  });
}

void Subscribers::say_end(Waiter& waiter, const JobView& end) {
  say_state(waiter, end);
  stream(waiter).end();
  wire::append(waiter.caller->out(), waiter.id, wire::Done{});
  leave(waiter);
}

void Subscribers::only_event(Waiter& waiter, const JobView& end, const Answer* answer,
                             const EventId& last) {
  begin_stream(waiter);
  if (answer != nullptr) {
    waiter.told_bytes = std::max(last.offset, answer->bytes - std::min(answer->bytes, kMostRest));
    say_text(waiter, *answer, last.run);
  }
  say_end(waiter, end);
}

void Subscribers::end_events(Job& job, const JobView& end) {
  each(job, Kind::kEvents, [&](Waiter& waiter) {
    JobView mine = end;
    mine.jobs_path = waiter.jobs_path;
    say_end(waiter, mine);
  });
}

void Subscribers::look_after_events(Waiter& waiter, int64_t now_ns) {
  const Job& job = *waiter.job;
  const bool waits = job.state() != Scheduler::Ticket::State::kRunning && !job.ending;
  const bool moved = waits && position_of(job) != waiter.told.position;
  if (waiter.caller->clogged()) {
    timers_.set(waiter, now_ns + kPositionNs);
  } else if (moved || waiter.progress_due) {
    const JobView now = view(job, waiter.jobs_path);
    say_state(waiter, now);
  } else {
    if (now_ns - waiter.told_ns >= kKeepAliveNs) {
      stream(waiter).keep_alive();
      waiter.told_ns = now_ns;
    }
    const int64_t keep_alive_ns = waiter.told_ns + kKeepAliveNs;
    timers_.set(waiter, waits ? std::min(keep_alive_ns, now_ns + kPositionNs) : keep_alive_ns);
  }
}

void Subscribers::look_after(Waiter& waiter, int64_t now_ns) {
  if (wants_to_speak(waiter) && waiter.news->opened) {
    return look_after_news(waiter, now_ns);
  }
  if (waiter.kind == Kind::kEvents && waiter.job != nullptr) {
    return look_after_events(waiter, now_ns);
  }
  if (!waiter.caller->clogged() &&
      waiter.job != nullptr) {  // else it has something to read already
    const JobView now = view(*waiter.job, {});
    wire::append(
        waiter.caller->out(), waiter.id,
        wire::Progress{.position = now.position,
                       .eta_ms = static_cast<uint64_t>(now.eta_seconds.value_or(0)) * 1000});
  }
  int64_t due_ns = now_ns + kSignOfLifeNs;
  if (waiter.kind == Kind::kPromise) {
    due_ns = std::min(due_ns, waiter.wait_ends_ns);
  }
  timers_.set(waiter, due_ns);
}

bool Subscribers::is_stuck(const Waiter& waiter, int64_t now_ns) const {
  return waiter.kind == Kind::kAnswer && waiter.caller->clogged() &&
         now_ns - waiter.caller->moved_ns() >= read_timeout_ns_;
}

void Subscribers::advance_to(int64_t now_ns, Due& due) {
  while (timers_.next_ns() <= now_ns) {
    auto& waiter = static_cast<Waiter&>(*timers_.first());
    if (waiter.kind == Kind::kPromise && waiter.wait_ends_ns <= now_ns) {
      waiter.wait_ends_ns = INT64_MAX;
      timers_.set(waiter, now_ns + kSignOfLifeNs);
      due.over.push_back(&waiter);
    } else if (is_stuck(waiter, now_ns)) {
      timers_.set(waiter, now_ns + kSignOfLifeNs);
      due.stuck.push_back(&waiter);
    } else if (waiter.kind == Kind::kOwner) {
      timers_.set(waiter, now_ns + kSignOfLifeNs);
      due.owners.push_back(&waiter);
    } else if (wants_to_speak(waiter) && !waiter.news->opened && waiter.news->speaks_ns <= now_ns &&
               status_of(*waiter.job) == JobStatus::kQueued) {
      timers_.set(waiter, now_ns + kSignOfLifeNs);
      due.quiet.push_back(&waiter);
    } else {
      look_after(waiter, now_ns);
    }
  }
}

}  // namespace penstock::queue
