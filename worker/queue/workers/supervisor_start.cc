// Supervisor: how a worker's process begins, ours or one that others have started.
#include <fmt/format.h>
#include <algorithm>

#include "shared/base/units.h"
#include "worker/queue/process/worker_command.h"
#include "worker/queue/text/log.h"
#include "worker/queue/workers/supervisor.h"

namespace penstock::queue {

using State = Supervisor::Worker::State;

Result<Child> Supervisor::check_device(const WorkerConfig& worker, const std::string& device,
                                       int lock) {
  WorkerConfig checked = worker;
  checked.device = device;
  auto command = worker_command(binary_, checked, config_.limits, config_.log.settings);
  command.emplace_back("--check-device");
  auto environment = worker_environment(checked);
  auto spawned =
      environment ? spawn(command, *environment, lock) : Result<Spawned>(environment.error());
  return spawned ? Result<Child>(spawned->child) : Result<Child>(spawned.error());
}

void Supervisor::start(Worker& worker, int64_t now_ns) {
  auto environment = worker_environment(worker.config);
  auto spawned =
      environment
          ? spawn(worker_command(binary_, worker.config, config_.limits, config_.log.settings),
                  *environment, devices_.lock_of(worker.config))
          : Result<Spawned>(environment.error());
  if (!spawned) {
    worker.last_error = spawned.error().message;
    worker.start_ns = now_ns + worker.backoff.after(0);
    dispatcher_.served().failed(worker.config.name, worker.start_ns);
    log(Level::kError, worker.label() + ": " + worker.last_error + "; next attempt in " +
                           format_duration(worker.start_ns - now_ns));
    return;
  }
  const WorkerConfig* const as_configured = find(Scaling::worker_of(worker.config.name));
  if (worker.config.reserves_memory() && as_configured != nullptr &&
      worker.config.memory_bytes < as_configured->memory_bytes) {
    log(Level::kInfo, fmt::format("{}: takes {} MiB of its {} MiB, as others share device {}",
                                  worker.label(), worker.config.memory_bytes >> 20,
                                  as_configured->memory_bytes >> 20, worker.config.device));
  }
  worker.child = spawned->child;
  begin(worker, std::move(spawned->socket), now_ns);
}

// Its process is there, at the other end of the socket.
void Supervisor::begin(Worker& worker, Fd socket, int64_t now_ns) {
  Scheduler& scheduler = dispatcher_.scheduler();
  Scheduler::Lane& lane =
      scheduler.lane(*scheduler.find_queue(worker.config.queue), worker.config.model_name);
  worker.state = State::kStarting;
  worker.start_ns = now_ns;
  worker.ready_ns = 0;
  worker.kill_ns = INT64_MAX;
  worker.killed = false;
  worker.ordered = false;
  worker.end.clear();
  dispatcher_.served().starting(worker.config.name, now_ns);
  worker.seat = devices_.seat(worker.config);
  worker.session = std::make_unique<WorkerSession>(connections_, std::move(socket), dispatcher_,
                                                   *this, worker.config.name, lane, *worker.seat,
                                                   dispatcher_.paces().of(worker.config));
  if (const Status opened = worker.session->open(); !opened) {
    worker.last_error = opened.error().message;
    worker.session->close();
  }
}

Status Supervisor::attach(Fd& fd, const std::string& unread, pid_t pid) {
  wire::Hello hello;
  const wire::Decoded frame = wire::decode(unread, connections_.limits());
  wire::parse(frame.frame.payload, hello);
  const std::string name(hello.name.substr(0, WorkerSession::kMaxNameBytes));
  const WorkerConfig* const known = find(name);
  if (known == nullptr || !known->external || stopping_) {
    return Error{"there is no worker '" + name + "' with external: true in penstock.yaml"};
  }
  const auto place = std::find_if(workers_.begin(), workers_.end(), [&](const auto& each) {
    return Scaling::worker_of(each->config.name) == name && each->state == State::kWaiting &&
           !each->retired && devices_.can_start(each->config);
  });
  if (place == workers_.end() && scaling_.is_ordered(name) && processes_of(*known) == 0) {
    return Error{std::string(kDrainedWords), ErrorKind::kGone};
  }
  if (place == workers_.end()) {
    return Error{"worker " + name +
                 " has all the processes that it may have, or its device is out"};
  }
  log(Level::kInfo, fmt::format("{}: process {} has connected", (*place)->label(), pid));
  begin(**place, std::move(fd), connections_.now_ns());
  (*place)->session->read_first(unread);
  return Ok{};
}

}  // namespace penstock::queue
