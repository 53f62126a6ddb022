// Dispatcher: what is known of the workers of all hosts, and how long jobs wait for them.
//
// The rank of a job comes from Redis, and what workers take from the hosts' roster. What was
// foretold is compared with what came true by the host that told it, so its ranges are its own.
#include <algorithm>

#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {

HostSays Dispatcher::says(const SharedQueue& queue) const {
  using State = ServedModels::Member::State;
  HostSays says{.since_ms = since_ms_, .draining = draining_};
  for (const ServedModels::Member& each : served_.members()) {
    const Scheduler::Lane& lane = *each.lane;
    if (lane.queue->settings.name != queue.name()) {
      continue;
    }
    const auto ready = each.state == State::kReady ? 1U : 0U;
    const auto same = std::find_if(says.models.begin(), says.models.end(), [&](const auto& model) {
      return model.name == each.model && model.written == each.model_written;
    });
    if (draining_) {  // it may come back
      if (same == says.models.end()) {
        says.models.push_back(
            {.name = each.model, .written = each.model_written, .attended = false});
      }
      continue;
    }
    if (same != says.models.end()) {
      ++same->workers;
      same->ready += ready;
      continue;
    }
    const bool first = std::none_of(says.models.begin(), says.models.end(),
                                    [&](const auto& model) { return model.name == each.model; });
    HostSays::Model model{
        .name = each.model,
        .written = each.model_written,
        .workers = 1,
        .ready = ready,
        .attended = served_.attended(lane, connections_.now_ns(), limits_.worker_grace_ns)};
    if (first) {  // the lane's figures stand once
      model.slots = lane.capacity;
      model.running = lane.running;
      model.mean_ns = lane.service.mean_ns();
      model.spread = lane.service.spread();
      model.seen = lane.service.seen();
    }
    says.models.push_back(std::move(model));
  }
  return says;
}

void Dispatcher::on_roster(SharedQueue& queue) {
  Scheduler::Queue* const its = scheduler_.find_queue(queue.name());
  if (its == nullptr) {
    return;
  }
  const Roster& roster = queue.roster();
  for (const auto* const models : {&roster.models(), &roster.models_away()}) {
    for (const HostSays::Model& model : *models) {
      scheduler_.lane(*its, model.name);
    }
  }
  for (const auto& lane : its->lanes) {
    lane->all_hosts = roster.workers(lane->model);
  }
  if (roster.paused() != its->paused) {
    log(Level::kInfo,
        "queue " + queue.name() + (roster.paused() ? ": paused" : ": resumed") + " on all hosts");
    roster.paused() ? pause(*its) : resume(*its);
  }
  if (!suspects_.empty()) {
    give_back_idle();
  }
}

// Of its model; of jobs that name none, any in the queue.
bool Dispatcher::has_worker(const Scheduler::Lane& lane) {
  bool has = false;
  workers_.each([&](const WorkerSession& worker) {
    has =
        has || &worker.lane() == &lane || (lane.model.empty() && worker.lane().queue == lane.queue);
  });
  return has;
}

// It comes to a queue that goes on.
void Dispatcher::foretell_away(Job& job, const Scheduler::Lane& lane) {
  const bool scheduled = job.more->keep != nullptr && job.more->keep->not_before_ms != 0;
  if (lane.queue->paused || scheduled || job.more->position == 0) {
    return;
  }
  job.more->foretold = Scheduler::foretell_at(lane, job.more->position);
  job.more->is_foretold = job.more->foretold.told.known();
}

// Nobody waits for it here, so it is forgotten; of some it is learned all the same when they began.
void Dispatcher::remember_foretold(const Job& job) {
  constexpr uint64_t kOneOf = 16;
  constexpr size_t kMost = 256;
  if (!job.more->is_foretold || job.edge_number() % kOneOf != 0) {
    return;
  }
  if (foretold_.size() == kMost) {  // an end may not have been heard
    const auto oldest = std::min_element(
        foretold_.begin(), foretold_.end(),
        [](const auto& a, const auto& b) { return a.second.told_ns < b.second.told_ns; });
    shared(*oldest->second.lane->queue)->forget_end(oldest->first);
    foretold_.erase(oldest);
  }
  const std::string id(job.id().view());
  foretold_[id] = {job.home(), job.more->foretold, connections_.now_ns()};
  shared(*job.home()->queue)->await_end(id);
}

// Of one that is over.
void Dispatcher::learn_forgotten(SharedQueue& queue, const JobId& id) {
  const auto found = foretold_.find(std::string(id.view()));
  if (found == foretold_.end()) {
    return;
  }
  const AwayWait wait = found->second;
  foretold_.erase(found);
  queue.look(id.view(), kMostRecordBytes,
             [this, wait](const SharedOrder::Answer<SharedOrder::Known>& known) {
               JobRecord record;
               std::string_view answer;
               if (known && decode(known.value, record, answer)) {
                 learn_away(*wait.lane, wait.foretold, record);
               }
             });
}

// Other hosts say when it began, by clocks that are a few milliseconds off.
void Dispatcher::learn_away(Scheduler::Lane& lane, const Scheduler::Foretold& foretold,
                            const JobRecord& record) {
  if (record.end.started_ms == 0 || record.end.attempts > 0) {
    return;  // what followed was not foreseen
  }
  const int64_t waited_ns =
      std::max<int64_t>(record.end.started_ms - record.created_ms, 1) * kNsPerMs;
  lane.spread.started();
  Metrics::foretold(*notes_.at(lane.queue).metrics, waited_ns, foretold.told_ns(),
                    lane.all_hosts.mean_ns);
  note_came_true(lane, record.id, foretold, waited_ns);
}

void Dispatcher::note_came_true(Scheduler::Lane& lane, const JobId& id,
                                const Scheduler::Foretold& foretold, int64_t waited_ns) {
  ForetoldWait wait{.id = id,
                    .queue = lane.queue->settings.name,
                    .model = lane.model,
                    .told_ms = time_.ms() - waited_ns / kNsPerMs,
                    .said_ns = foretold.wait_ns,
                    .soon_ns = foretold.soon_ns,
                    .late_ns = foretold.late_ns,
                    .waited_ns = waited_ns};
  Metrics::came_true(*notes_.at(lane.queue).metrics, wait.inside());
  predictions_.add(std::move(wait));
  Scheduler::came_true(lane, foretold, waited_ns);
}

void Dispatcher::look_for_end(SharedQueue& queue, const JobId& id) {
  const auto is_wanted = [this, id] {
    const Job* const job = find(id);
    return job != nullptr && job->waiters() != nullptr;
  };
  // Where nobody waits, what it used is all that is asked for.
  const size_t most = is_wanted() ? 0 : kMostRecordBytes;
  const auto told = [this, &queue, id, most,
                     is_wanted](const SharedOrder::Answer<SharedOrder::Known>& known) {
    using State = SharedOrder::Known::State;
    Job* const job = find(id);
    if (job == nullptr || !job->away || job->looking_up || !known) {
      return;
    }
    if (most != 0 && is_wanted()) {
      return look_for_end(queue, id);
    }
    const bool lost = known.value.state == State::kUnknown &&
                      !(job->more->keep->promised && queue.may_come_back(std::string(id.view())));
    if (lost || known.value.state == State::kOver) {
      end_away_whole(id, known.value);
    }
  };
  queue.look(id.view(), most, told);
}

}  // namespace penstock::queue
