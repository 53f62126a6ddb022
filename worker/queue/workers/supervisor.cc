#include "worker/queue/workers/supervisor.h"

#include <fmt/format.h>
#include <algorithm>

#include "shared/base/units.h"
#include "worker/queue/process/worker_command.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

using State = Supervisor::Worker::State;

// Callers are told to come back then, at the latest, when nobody knows when a device will be.
constexpr int64_t kComeBackNs = 30 * kNsPerSec;

std::string counted(uint32_t processes) {
  return fmt::format("{} process{}", processes, processes == 1 ? "" : "es");
}

}  // namespace

const char* Supervisor::name_of(State state) {
  constexpr const char* kNames[] = {"waiting", "starting", "ready", "draining"};
  return kNames[static_cast<size_t>(state)];
}

Supervisor::Supervisor(ConnectionLoop& connections, Dispatcher& dispatcher, std::string locks)
    : connections_(connections),
      dispatcher_(dispatcher),
      devices_([this](const WorkerConfig& worker, const std::string& device,
                      int lock) { return check_device(worker, device, lock); },
               std::move(locks)) {
  devices_.on_change = [this] { rearrange_ = true; };
}

void Supervisor::apply(const Config& config) {
  if (config.log.settings != config_.log.settings) {
    tell_log(config.log.settings);
  }
  config_ = config;
  binary_ =
      config.worker_binary.empty() ? binary_beside_this("penstock-worker") : config.worker_binary;
  std::map<std::string, uint32_t> least;
  for (const AutoscaleConfig& each : config.autoscales) {
    least[each.worker] = each.bounds.min;
  }
  scaling_.begin_by_load(std::move(least));
  arrange();
}

// Those that others started have it from them.
void Supervisor::tell_log(const LogSettings& log) {
  for (const auto& each : workers_) {
    if (each->session != nullptr && !each->config.external) {
      each->session->tell_log(log);
    }
  }
}

void Supervisor::scale(const std::string& worker, uint32_t processes) {
  log(Level::kInfo, fmt::format("worker {}: scaled to {}", worker, counted(processes)));
  scaling_.set(worker, processes);
  arrange();
}

void Supervisor::autoscale(const std::string& worker, uint32_t processes) {
  log(Level::kInfo, fmt::format("worker {}: scaled to {} by its load", worker, counted(processes)));
  scaling_.set_by_load(worker, processes);
  arrange();
}

void Supervisor::forget_order(const std::string& worker) {
  scaling_.forget_order(worker);
  arrange();
}

void Supervisor::drain(const std::string& worker) {
  scaling_.set(worker, 0);
  for (const auto& each : workers_) {
    if (Scaling::worker_of(each->config.name) == worker) {
      each->next.reset();
      retire(*each, INT64_MAX);
    }
  }
  scale(worker, 0);
}

const WorkerConfig* Supervisor::find(std::string_view worker) const {
  const auto found = std::find_if(config_.workers.begin(), config_.workers.end(),
                                  [&](const WorkerConfig& each) { return each.name == worker; });
  return found == config_.workers.end() ? nullptr : &*found;
}

// From the workers there are to those there should be. Those without slots are stopped.
void Supervisor::arrange() {
  if (stopping_) {
    return;
  }
  Config scaled = config_;
  scaled.workers = scaled_workers(config_.workers, scaling_);
  std::vector<WorkerConfig> running;
  for (const auto& worker : workers_) {
    running.push_back(worker->config);
  }
  devices_.place(config_, running, scaled.workers, connections_.now_ns());
  devices_.compare_with_seen(connections_.now_ns());
  dispatcher_.apply(scaled);
  std::erase_if(scaled.workers, [](const WorkerConfig& worker) { return worker.slots == 0; });
  const int64_t now_ns = connections_.now_ns();
  const int64_t kill_ns = now_ns + config_.drain_timeout_ns;
  for (const auto& worker : workers_) {
    const auto same = std::find_if(
        scaled.workers.begin(), scaled.workers.end(),
        [&](const WorkerConfig& wanted) { return wanted.name == worker->config.name; });
    if (same == scaled.workers.end()) {
      worker->next.reset();
      if (!worker->retired) {
        retire(*worker, kill_ns);
      }
    } else if (same->external && worker->state == State::kWaiting) {
      worker->config = *same;
      worker->retired = false;
    } else if (!(*same == worker->config) || worker->retired) {
      worker->next = *same;
      retire(*worker, kill_ns);
    }
  }
  for (const WorkerConfig& wanted : scaled.workers) {
    const auto known = [&](const auto& worker) { return worker->config.name == wanted.name; };
    if (std::none_of(workers_.begin(), workers_.end(), known)) {
      Worker& worker = *workers_.emplace_back(std::make_unique<Worker>());
      worker.config = wanted;
      worker.start_ns = now_ns;
    }
  }
  devices_.advance_claims();
  dispatcher_.recount();
  dispatcher_.fill_all();
  advance_to(now_ns);
}

void Supervisor::observe(const DeviceWatch& watch) {
  devices_.observe(watch.devices(), watch.known(), connections_.now_ns());
}

void Supervisor::shut_down(int64_t kill_ns) {
  stopping_ = true;
  for (const auto& worker : workers_) {
    worker->next.reset();
    retire(*worker, kill_ns);
  }
  devices_.shut_down();
  advance_to(connections_.now_ns());
}

bool Supervisor::all_gone() const {
  return std::all_of(workers_.begin(), workers_.end(),
                     [](const auto& worker) { return !worker->child.lives(); });
}

// Ends the worker's present process, gently if it has begun to work.
void Supervisor::retire(Worker& worker, int64_t kill_ns) {
  worker.retired = true;
  if (worker.session != nullptr) {  // else it was killed, and does not die
    worker.kill_ns = std::min(worker.kill_ns, kill_ns);
  }
  if (worker.state == State::kReady && worker.session != nullptr) {
    log(Level::kInfo, worker.label() + ": draining");
    worker.state = State::kDraining;
    if (worker.config.external && !worker.next && !stopping_ &&
        scaling_.is_ordered(std::string(Scaling::worker_of(worker.config.name)))) {
      worker.session->tell_drained(kDrainedWords);
    }
    dispatcher_.worker_leaving(*worker.session);
  } else if (worker.state == State::kStarting && worker.session != nullptr) {
    worker.state = State::kDraining;
    worker.session->close();  // it exits when it sees that
  }
}

Supervisor::Worker& Supervisor::worker_of(const WorkerSession& session) {
  return **std::find_if(workers_.begin(), workers_.end(),
                        [&](const auto& worker) { return worker->session.get() == &session; });
}

void Supervisor::on_worker_ready(WorkerSession& session) {
  Worker& worker = worker_of(session);
  if (worker.state == State::kStarting) {
    worker.state = State::kReady;
    worker.ready_ns = connections_.now_ns();
    log(Level::kInfo, fmt::format("{}: ready, process {}, model {}, {} slots", worker.label(),
                                  worker.child.pid(), worker.config.model_name, session.slots()));
    dispatcher_.worker_ready(session);
  }
}

void Supervisor::on_worker_closed(WorkerSession& session) {
  Worker& worker = worker_of(session);
  worker.seat->withdraw_all();
  worker.kill_ns = std::min(worker.kill_ns, connections_.now_ns() + Child::kLingerNs);
  if (!worker.child.lives()) {
    lose(worker);
  }
}

void Supervisor::reap() {
  for (const auto& worker : workers_) {
    const pid_t pid = worker->child.pid();
    if (worker->child.reap()) {
      on_exit(*worker, pid);
    }
  }
  devices_.reap(connections_.now_ns());
}

void Supervisor::on_exit(Worker& worker, pid_t pid) {
  const bool wanted = worker.retired && worker.child.succeeded();
  log(wanted ? Level::kInfo : Level::kWarn,
      fmt::format("{}: process {} {}", worker.label(), pid, worker.child.end()));
  if (!wanted && worker.end.empty()) {
    worker.end = worker.child.end();
  }
  worker.ordered = worker.ordered || wanted;
  worker.seat->release();
  if (worker.session == nullptr) {
    settle(worker);
  } else if (worker.session->closed()) {
    lose(worker);
  } else {  // its last frames are still to be read
    worker.session->note_gone();
    dispatcher_.recount();
    worker.kill_ns = std::min(worker.kill_ns, connections_.now_ns() + Child::kLingerNs);
  }
  dispatcher_.fill_all();
}

// Its jobs go back.
void Supervisor::lose(Worker& worker) {
  const int64_t now_ns = connections_.now_ns();
  if (const std::string& words = worker.session->last_words(); !words.empty()) {
    worker.end = words;
    log(Level::kError, worker.label() + ": " + words);
  }
  if (worker.session->device_fault()) {
    devices_.fault(worker.config, worker.end, now_ns);
  }
  worker.last_error = worker.end.empty() ? worker.last_error : worker.end;
  const bool sent_away = worker.retired && !worker.next;
  dispatcher_.worker_lost(*worker.session,
                          sent_away ? INT64_MAX : now_ns + RestartBackoff::kFirstNs, worker.end,
                          worker.ordered);
  worker.session.reset();
  settle(worker);
  dispatcher_.fill_all();  // what it had is free
}

// Once the process is reaped and its jobs are back, the worker waits for its next start.
void Supervisor::settle(Worker& worker) {
  if (worker.child.lives() || worker.session != nullptr || worker.state == State::kWaiting) {
    return;
  }
  const int64_t now_ns = connections_.now_ns();
  const int64_t ready_ns = worker.ready_ns == 0 ? 0 : now_ns - worker.ready_ns;
  worker.seat.reset();
  worker.state = State::kWaiting;
  worker.kill_ns = INT64_MAX;
  worker.start_ns = now_ns;
  if (!worker.retired) {
    ++worker.restarts;
    worker.start_ns += worker.backoff.after(ready_ns);
    dispatcher_.served().lost(worker.config.name, now_ns, worker.start_ns);
    if (worker.ready_ns == 0) {
      dispatcher_.served().failed(worker.config.name, worker.start_ns);
    }
    log(Level::kWarn,
        worker.label() + ": next start in " + format_duration(worker.start_ns - now_ns));
  }
}

void Supervisor::kill(Worker& worker, const std::string& why) {
  log(Level::kWarn,
      fmt::format("{}: {}; killing process {}", worker.label(), why, worker.child.pid()));
  worker.end = worker.end.empty() ? why : worker.end;
  worker.killed = true;
  worker.kill_ns = connections_.now_ns() + Child::kLingerNs;
  worker.child.kill();
  worker.session->close();  // nothing it may still say counts
}

bool Supervisor::startable(const Worker& worker) const {
  const WorkerConfig& config = worker.next ? *worker.next : worker.config;
  return (!worker.retired || worker.next) && (!config.external || worker.retired) &&
         devices_.can_start(config);
}

std::string Supervisor::waits_for(const Worker& worker) const {
  if (worker.state != State::kWaiting) {
    return "";
  }
  const WorkerConfig& config = worker.next ? *worker.next : worker.config;
  const std::string device = devices_.waits_for(config);
  return device.empty() && config.external ? "its process is started by others, and connects"
                                           : device;
}

// When there is something to do for this worker.
int64_t Supervisor::due_ns(const Worker& worker) const {
  const bool over = worker.killed || worker.session == nullptr || worker.session->closed();
  switch (worker.state) {
    case State::kWaiting:
      return startable(worker) ? worker.start_ns : INT64_MAX;
    case State::kStarting:
      return over ? worker.kill_ns
                  : std::min(worker.kill_ns, worker.start_ns + config_.limits.start_timeout_ns);
    default:
      return over               ? worker.kill_ns
             : is_stuck(worker) ? worker.session->last_heard_ns()
                                : std::min(worker.kill_ns, worker.session->last_heard_ns() +
                                                               config_.limits.heartbeat_timeout_ns);
  }
}

// It lives, and yet its engine does not come back from a step. REQUIRES: it has a session.
bool Supervisor::is_stuck(const Worker& worker) const {
  return static_cast<int64_t>(worker.session->heartbeat().step_ms) >
         config_.limits.step_timeout_ns / kNsPerMs;
}

void Supervisor::check(Worker& worker, int64_t now_ns) {
  if (due_ns(worker) > now_ns) {
    return;
  }
  if (worker.state == State::kWaiting) {
    if (worker.next) {
      WorkerConfig there = worker.config;
      there.device = worker.next->device;
      there.memory_bytes = worker.next->memory_bytes;
      const bool same_but_for_its_place = there == *worker.next;
      worker.config = *std::move(worker.next);
      worker.next.reset();
      worker.retired = false;
      worker.backoff = same_but_for_its_place ? worker.backoff : RestartBackoff{};
    }
    if (!worker.config.external) {
      start(worker, now_ns);
    }
  } else if (!worker.child.lives() && !worker.config.external) {
    worker.kill_ns = INT64_MAX;  // reaped; only its socket is left
    worker.session->close();
  } else if (worker.killed) {
    worker.kill_ns = INT64_MAX;
    if (worker.session == nullptr) {
      return;  // given up before
    }
    log(Level::kError,
        fmt::format("{}: process {} does not die; what it uses of its device stays taken until it "
                    "does",
                    worker.label(), worker.child.pid()));
    lose(worker);
  } else if (worker.kill_ns <= now_ns) {
    worker.ordered = worker.retired && !worker.session->closed();
    kill(worker, worker.session->closed() ? "closed its socket and did not exit"
                                          : "did not finish in time");
  } else if (is_stuck(worker)) {
    kill(worker, "its engine took longer than limits.step_timeout, " +
                     format_duration(config_.limits.step_timeout_ns) + ", for one step");
  } else {
    kill(worker,
         worker.state == State::kStarting
             ? "was not ready after " + format_duration(config_.limits.start_timeout_ns)
             : "gave no sign of life for " + format_duration(config_.limits.heartbeat_timeout_ns));
  }
}

void Supervisor::advance_to(int64_t now_ns) {
  devices_.advance_to(now_ns);
  if (devices_.adapted(now_ns)) {
    dispatcher_.recount();
    dispatcher_.fill_all();
  }
  if (rearrange_ && !stopping_) {
    rearrange_ = false;
    return arrange();
  }
  for (const auto& worker : workers_) {
    check(*worker, now_ns);
    if (worker->state == State::kWaiting && !startable(*worker)) {
      const int64_t out_until_ns =
          devices_.out_until_ns(worker->next ? *worker->next : worker->config);
      dispatcher_.served().expect(worker->config.name,
                                  std::min(out_until_ns, now_ns + kComeBackNs));
    }
  }
  std::erase_if(workers_, [](const auto& worker) {
    return worker->state == State::kWaiting && worker->retired && !worker->next;
  });
}

int64_t Supervisor::next_event() const {
  int64_t next_ns = devices_.next_event();
  for (const auto& worker : workers_) {
    next_ns = std::min(next_ns, due_ns(*worker));
  }
  return next_ns;
}

}  // namespace penstock::queue
