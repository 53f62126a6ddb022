#include "worker/queue/jobs/jobs_hand_over.h"

#include <algorithm>

#include "worker/queue/jobs/caller.h"
#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/text/log.h"
#include "worker/queue/traces/job_trace.h"

namespace penstock::queue {

using Kind = Waiter::Kind;
using PromiseState = Job::PromiseState;
using State = Scheduler::Ticket::State;

namespace {

constexpr double kMillion = 1'000'000;

uint64_t flags_of(const Job& job) {
  const auto flag = [](bool is, uint64_t which) { return is ? which : 0; };
  const bool more = job.more != nullptr;
  return flag(job.promise != PromiseState::kNone, CarriedJob::kPromised) |
         flag(job.answer_began, CarriedJob::kAnswerBegan) |
         flag(job.answer_fails, CarriedJob::kAnswerFails) |
         flag(job.keeps_answer, CarriedJob::kKeepsAnswer) |
         flag(job.has_callback, CarriedJob::kHasCallback) | flag(job.by_date, CarriedJob::kByDate) |
         flag(job.passed, CarriedJob::kPassed) |
         flag(more && job.more->has_progress, CarriedJob::kHasProgress) |
         flag(more && job.more->paid, CarriedJob::kPaid);
}

CarriedWaiter carried_of(const Waiter& waiter, uint64_t caller, int64_t due_ns) {
  CarriedWaiter carried{.caller = caller,
                        .id = waiter.id,
                        .kind = static_cast<uint64_t>(waiter.kind),
                        .duplicate = waiter.duplicate ? 1U : 0U,
                        .websocket = waiter.websocket ? 1U : 0U,
                        .due_ns = due_ns,
                        .wait_ns = waiter.wait_ns,
                        .wait_ends_ns = waiter.wait_ends_ns,
                        .told_bytes = waiter.told_bytes,
                        .told_ns = waiter.told_ns,
                        .progress_due = waiter.progress_due ? 1U : 0U,
                        .jobs_path = waiter.jobs_path};
  const QueueNews* const news = waiter.news.get();
  const ToldWait& told = news != nullptr ? news->told : waiter.told;
  carried.told_status = static_cast<uint64_t>(told.status);
  carried.told_position = told.position;
  carried.told_by_class = told.ahead_by_class;
  carried.told_eta_s = told.eta_s;
  carried.is_foretold = told.foretold_s ? 1 : 0;
  carried.foretold_s = told.foretold_s.value_or(0);
  if (news != nullptr) {
    carried.has_news = 1;
    carried.every_ns = news->every_ns;
    carried.events = news->events ? 1 : 0;
    carried.completion = news->completion ? 1 : 0;
    carried.speaks_ns = news->speaks_ns;
    carried.opened = news->opened ? 1 : 0;
    carried.jobs_path = news->jobs_path;
    if (news->misfit != nullptr) {
      carried.misfit_status = news->misfit->status;
      carried.misfit_is_json = news->misfit->is_json ? 1 : 0;
      carried.misfit = news->misfit->body;
    }
  }
  return carried;
}

ToldWait told_of(const CarriedWaiter& carried) {
  ToldWait told{.status = static_cast<JobStatus>(std::min<uint64_t>(
                    carried.told_status, static_cast<uint64_t>(JobStatus::kExpired))),
                .position = static_cast<uint32_t>(carried.told_position),
                .ahead_by_class = static_cast<uint32_t>(carried.told_by_class),
                .eta_s = carried.told_eta_s};
  if (carried.is_foretold != 0) {
    told.foretold_s = carried.foretold_s;
  }
  return told;
}

std::unique_ptr<QueueNews> news_of(const CarriedWaiter& carried) {
  auto news = std::make_unique<QueueNews>();
  news->every_ns = carried.every_ns;
  news->events = carried.events != 0;
  news->completion = carried.completion != 0;
  news->jobs_path = carried.jobs_path;
  news->speaks_ns = carried.speaks_ns;
  news->opened = carried.opened != 0;
  news->told = told_of(carried);
  if (carried.misfit_status != 0) {
    news->misfit = std::make_unique<Misfit>(Misfit{.status = carried.misfit_status,
                                                   .is_json = carried.misfit_is_json != 0,
                                                   .body = std::string(carried.misfit)});
  }
  return news;
}

}  // namespace

// ---- out ----

bool JobsHandOver::settle() {
  jobs_.checks_.settle();
  bool settled = jobs_.store_ == nullptr || jobs_.store_->pending() == 0;
  jobs_.jobs_.each([&](const Job& job) {
    settled = settled && !job.looking_up && !job.ending && job.promise != PromiseState::kAsked;
  });
  return settled;
}

void JobsHandOver::end_the_rest(const Waiter* but) {
  std::vector<Waiter*> over;
  for (Waiter& waiter : jobs_.subscribers_.waiters_) {
    if (waiter.caller != nullptr && &waiter != but &&
        (waiter.kind == Kind::kOwner || waiter.kind == Kind::kQuestion)) {
      over.push_back(&waiter);
    }
  }
  for (Waiter* const waiter : over) {
    if (waiter->kind == Kind::kOwner) {
      jobs_.subscribers_.stream(*waiter).end();
      wire::append(waiter->caller->out(), waiter->id, wire::Done{});
    } else {
      wire::append(waiter->caller->out(), waiter->id,
                   wire::Failed{.status = 503,
                                .code = "busy",
                                .message = "penstockd is being upgraded. Ask again.",
                                .retry_after_s = 1});
    }
    jobs_.subscribers_.leave(*waiter);
  }
}

void JobsHandOver::note_numbers(CarriedBegin& begin) const {
  begin.job_number = jobs_.last_number_;
  begin.check_number = jobs_.checks_.last_number();
}

void JobsHandOver::write(RecordWriter& record, const PlaceOf& place_of) const {
  std::vector<const Job*> jobs;
  jobs_.jobs_.each([&](const Job& job) {
    if (job.lane() != nullptr) {
      jobs.push_back(&job);
    }
  });
  // As they came, so that their deadlines come in order again.
  std::sort(jobs.begin(), jobs.end(), [](const Job* a, const Job* b) {
    return a->deadline_ns() != b->deadline_ns() ? a->deadline_ns() < b->deadline_ns()
                                                : a->arrived_ns() < b->arrived_ns();
  });
  SuspectsWaiting suspects;
  jobs_.suspects_.each([&](const Job& job, const Scheduler::Lane& lane) {
    suspects.emplace(&job, Suspect{suspects.size(), &lane});
  });
  for (const Job* const job : jobs) {
    write(record, *job, place_of, suspects);
  }
  order_.write(record);
}

void JobsHandOver::write(RecordWriter& record, const Job& job, const PlaceOf& place_of,
                         const SuspectsWaiting& suspects) const {
  CarriedJob carried{.high = job.ulid.high,
                     .low = job.ulid.low,
                     .flags = flags_of(job),
                     .created_ms = job.created_ms,
                     .owner = job.owner};
  order_.note(job, carried);
  std::string trace;
  std::string kept;
  if (const Job::More* const more = job.more.get(); more != nullptr) {
    carried.suspect = more->suspect;
    if (const auto found = suspects.find(&job); found != suspects.end()) {
      carried.due_ns = 0;  // it waits for no time
      carried.suspect_place_plus1 = found->second.place + 1;
      carried.suspect_of = found->second.lane->model;
    }
    carried.frame = job.promise == PromiseState::kNone ? more->frame.view() : std::string_view();
    carried.ends_by_ns = more->ends_by_ns;
    carried.taken_bytes = more->taken_bytes;
    carried.key_lo = more->key.lo, carried.key_hi = more->key.hi;
    carried.digest_lo = more->digest.lo, carried.digest_hi = more->digest.hi;
    carried.label = more->label;
    carried.receipt = more->receipt;
    if (more->trace != nullptr) {
      trace = text_of(*more->trace);
      carried.trace = trace;
      carried.limited_us = more->trace->limited_us;
    }
    carried.progress_millionths = static_cast<uint64_t>(more->progress * kMillion);
    carried.step = more->step;
    carried.steps = more->steps;
    if (more->preview != nullptr) {
      carried.preview_type = more->preview->content_type;
      carried.preview = more->preview->body;
      carried.preview_number = more->preview->number;
    }
    carried.answer_status = more->answer.status;
    carried.answer_type = more->answer.content_type;
    carried.answer_headers = more->answer.headers;
    carried.answer_tail = more->answer.tail;
    carried.answer_bytes = more->answer.bytes;
    carried.answer_stored = more->answer.stored;
    if (more->keep != nullptr) {
      JobRecord named = *more->keep;
      named.id = job.id();
      kept = encode(named, {});
      carried.kept = kept;
      carried.kept_key_lo = named.key.lo, carried.kept_key_hi = named.key.hi;
    }
  }
  record.add(carried);
  std::vector<const Waiter*> waiters;
  for (const Waiter* waiter = job.waiters(); waiter != nullptr; waiter = waiter->next) {
    waiters.push_back(waiter);
  }
  const TimerHeap& timers = jobs_.subscribers_.timers_;
  for (; !waiters.empty(); waiters.pop_back()) {
    const Waiter& waiter = *waiters.back();
    record.add(carried_of(waiter, place_of(*waiter.caller),
                          waiter.is_set() ? timers.due_ns(waiter) : INT64_MAX));
  }
}

// ---- in ----

void JobsHandOver::take_numbers(const CarriedBegin& begin) {
  jobs_.last_number_ = begin.job_number;
  jobs_.checks_.start_after(begin.check_number);
}

void JobsHandOver::read(const CarriedJob& job) {
  carried_.push_back(job);
  if ((job.flags & CarriedJob::kPromised) != 0) {
    records_.try_emplace(job.low);
  }
}

void JobsHandOver::keep_files(Store& store) const {
  for (const CarriedJob& each : carried_) {
    if (each.answer_stored > 0) {
      store.append_result(id_of(Ulid{each.high, each.low}), each.answer_stored, {});
    }
  }
}

bool JobsHandOver::takes(JobRecord& record) {
  const auto found = records_.find(ulid_of(record.id).low);
  if (found == records_.end()) {
    return false;
  }
  found->second = std::move(record);
  return true;
}

void JobsHandOver::restore() {
  for (const CarriedJob& each : carried_) {
    restore(each);
  }
  restore_suspects();
  carried_ = {};
  records_ = {};
}

void JobsHandOver::finish() {
  jobs_.jobs_.each([this](Job& job) {
    if (job.state() == State::kRunning && job.worker() == nullptr) {
      log(Level::kError,
          "job " + std::string(job.id().view()) + ": its worker was not handed over");
      jobs_.take_back(job, "penstockd was upgraded.");
    } else if (job.state() == State::kRunning && job.more != nullptr) {
      jobs_.widen(job);  // what was held up for a slow reader goes on once it has read
    }
  });
}

Scheduler::Queue& JobsHandOver::stand_in(std::string_view name) {
  const std::string queue(name);
  Scheduler::Queue& stands = jobs_.scheduler_.set_queue({.name = queue});
  jobs_.note_queue(QueueConfig{.name = queue});
  stands.retired = true;
  return stands;
}

void JobsHandOver::restore(const CarriedJob& carried) {
  const JobId id = id_of(Ulid{carried.high, carried.low});
  const bool promised = (carried.flags & CarriedJob::kPromised) != 0;
  JobRecord record;
  if (promised) {
    const auto found = records_.find(carried.low);
    if (found == records_.end() || found->second.id != id) {
      return log(Level::kError, "job " + std::string(id.view()) +
                                    " was promised, and the state does not have it any more");
    }
    record = std::move(found->second);
  }
  Scheduler& scheduler = jobs_.scheduler_;
  Scheduler::Queue* queue = scheduler.find_queue(carried.queue);
  if (queue == nullptr) {
    queue = &stand_in(carried.queue);
  }
  Job& job = jobs_.jobs_.add({carried.high, carried.low});
  job.created_ms = carried.created_ms;
  job.owner = carried.owner;
  job.promise = promised ? PromiseState::kMade : PromiseState::kNone;
  job.answer_began = (carried.flags & CarriedJob::kAnswerBegan) != 0;
  job.answer_fails = (carried.flags & CarriedJob::kAnswerFails) != 0;
  job.keeps_answer = (carried.flags & CarriedJob::kKeepsAnswer) != 0;
  job.has_callback = (carried.flags & CarriedJob::kHasCallback) != 0;
  job.by_date = (carried.flags & CarriedJob::kByDate) != 0;
  job.passed = job.shown = (carried.flags & CarriedJob::kPassed) != 0;
  promised ? jobs_.show(job) : static_cast<void>(++jobs_.unpromised_);
  if (!carried.frame.empty()) {
    jobs_.hold(job, std::string(carried.frame));
  }
  restore_answer(job, carried);
  if (!promised && !carried.kept.empty()) {
    std::string_view rest;
    auto kept = std::make_unique<JobRecord>();
    if (decode(carried.kept, *kept, rest)) {
      kept->key = {carried.kept_key_lo, carried.kept_key_hi};
      job.extra().keep = std::move(kept);
    }
  }
  const limit::Hash128 key{carried.key_lo, carried.key_hi};
  if (key != limit::Hash128{}) {
    jobs_.register_key(job, key, {carried.digest_lo, carried.digest_hi});
  }
  const bool runs = carried.state == static_cast<uint64_t>(State::kRunning);
  order_.restore(job, scheduler.lane(*queue, carried.model),
                 runs ? &scheduler.lane(*queue, carried.served_by) : nullptr, carried,
                 jobs_.connections_.now_ns());
  if (carried.suspect == 0) {
    return;
  }
  job.extra().suspect = static_cast<uint32_t>(carried.suspect);
  if (CarriedOrder::is_set_apart(carried)) {
    suspects_[carried.suspect_place_plus1] = {&job, &scheduler.lane(*queue, carried.suspect_of)};
  } else {
    jobs_.suspects_.note(job.more->suspect);
  }
}

void JobsHandOver::restore_suspects() {
  for (const auto& [place, suspect] : suspects_) {
    jobs_.suspects_.add_again(*suspect.second, *suspect.first);
  }
  suspects_.clear();
}

void JobsHandOver::restore_answer(Job& job, const CarriedJob& carried) {
  const bool plain = carried.label.empty() && carried.receipt.empty() && carried.trace.empty() &&
                     carried.answer_status == 0 && carried.preview_number == 0 &&
                     carried.ends_by_ns == 0 && carried.step == 0 &&
                     (carried.flags & (CarriedJob::kHasProgress | CarriedJob::kPaid)) == 0;
  if (plain && carried.taken_bytes == 0) {
    return;
  }
  Job::More& more = job.extra();
  more.ends_by_ns = carried.ends_by_ns;
  more.taken_bytes = carried.taken_bytes;
  more.label = carried.label;
  more.receipt = carried.receipt;
  if (!carried.trace.empty()) {
    more.trace = parse_trace(carried.trace);
    if (more.trace != nullptr) {
      more.trace->limited_us = carried.limited_us;
    }
  }
  more.has_progress = (carried.flags & CarriedJob::kHasProgress) != 0;
  more.paid = (carried.flags & CarriedJob::kPaid) != 0;
  more.progress = static_cast<double>(carried.progress_millionths) / kMillion;
  more.step = static_cast<uint32_t>(carried.step);
  more.steps = static_cast<uint32_t>(carried.steps);
  if (carried.preview_number != 0) {
    more.preview =
        std::make_unique<Preview>(Preview{.content_type = std::string(carried.preview_type),
                                          .body = std::string(carried.preview),
                                          .number = static_cast<uint32_t>(carried.preview_number)});
  }
  Answer& answer = more.answer;
  answer.status = static_cast<uint16_t>(carried.answer_status);
  answer.content_type = carried.answer_type;
  answer.headers = carried.answer_headers;
  answer.tail = carried.answer_tail;
  answer.bytes = std::max<uint64_t>(carried.answer_bytes, answer.tail.size());
  answer.stored =
      std::clamp<uint64_t>(carried.answer_stored, answer.bytes - answer.tail.size(), answer.bytes);
}

void JobsHandOver::read(const CarriedWaiter& carried, const JobId& id, Caller* caller) {
  Job* const job = jobs_.find(id);
  if (caller == nullptr || carried.kind > static_cast<uint64_t>(Kind::kEvents)) {
    return;
  }
  if (job == nullptr) {
    return wire::append(caller->out(), carried.id,
                        wire::Failed{.status = 502,
                                     .code = "engine_failed",
                                     .message = "The job was lost as penstockd was upgraded: its "
                                                "state does not have it any more."});
  }
  Subscribers& subscribers = jobs_.subscribers_;
  Waiter& waiter = subscribers.add(*caller, carried.id, static_cast<Kind>(carried.kind));
  waiter.duplicate = carried.duplicate != 0;
  waiter.websocket = carried.websocket != 0;
  waiter.wait_ns = carried.wait_ns;
  waiter.wait_ends_ns = carried.wait_ends_ns;
  waiter.told_bytes = carried.told_bytes;
  waiter.told_ns = carried.told_ns;
  waiter.progress_due = carried.progress_due != 0;
  if (carried.has_news != 0) {
    waiter.news = news_of(carried);
  } else {
    waiter.told = told_of(carried);
    waiter.jobs_path = carried.jobs_path;
  }
  subscribers.join(waiter, *job);
  subscribers.set_due(waiter, carried.due_ns);
}

}  // namespace penstock::queue
