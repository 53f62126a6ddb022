// Supervisor: its processes, as one penstockd hands them to the next. They are the same process's
// children before and after.
#include <fmt/format.h>
#include <algorithm>
#include <utility>

#include "worker/queue/text/log.h"
#include "worker/queue/workers/supervisor.h"

namespace penstock::queue {

using State = Supervisor::Worker::State;

namespace {

// Each text is followed by a NUL.
std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) {
    all.append(text).push_back('\0');
  }
  return all;
}

std::vector<std::string> split(std::string_view all) {
  std::vector<std::string> texts;
  for (size_t end; (end = all.find('\0')) != all.npos; all.remove_prefix(end + 1)) {
    texts.emplace_back(all.substr(0, end));
  }
  return texts;
}

struct ConfigTexts {
  std::string devices, options, environment;
};

void describe(const WorkerConfig& config, CarriedWorker& worker, ConfigTexts& texts) {
  texts.devices = joined(config.devices);
  texts.environment = joined(config.environment);
  for (const auto& [key, value] : config.options) {
    texts.options.append(key).push_back('\0');
    texts.options.append(value).push_back('\0');
  }
  worker.name = config.name;
  worker.engine = config.engine;
  worker.model = config.model;
  worker.model_path = config.model_path;
  worker.model_name = config.model_name;
  worker.devices = texts.devices;
  worker.device = config.device;
  worker.queue = config.queue;
  worker.options = texts.options;
  worker.environment = texts.environment;
  worker.kind = config.kind;
  worker.limit_key = config.limit_key;
  worker.adaptive_slots = config.adaptive_slots ? 1 : 0;
  worker.slots = config.slots;
  worker.memory_bytes = config.memory_bytes;
  worker.threads = config.threads;
  worker.external = config.external ? 1 : 0;
}

WorkerConfig config_of(const CarriedWorker& worker) {
  WorkerConfig config;
  config.name = worker.name;
  config.engine = worker.engine;
  config.model = worker.model;
  config.model_path = worker.model_path;
  config.model_name = worker.model_name;
  config.devices = split(worker.devices);
  if (config.devices.empty()) {
    config.devices = {"auto"};
  }
  config.device = worker.device;
  config.adaptive_slots = worker.adaptive_slots != 0;
  config.slots = static_cast<uint32_t>(worker.slots);
  config.memory_bytes = worker.memory_bytes;
  config.queue = worker.queue;
  config.threads = static_cast<uint32_t>(worker.threads);
  const std::vector<std::string> options = split(worker.options);
  for (size_t i = 0; i + 1 < options.size(); i += 2) {
    config.options.emplace_back(options[i], options[i + 1]);
  }
  config.environment = split(worker.environment);
  config.external = worker.external != 0;
  config.kind = worker.kind;
  config.limit_key = worker.limit_key;
  return config;
}

}  // namespace

bool Supervisor::settled() const {
  return std::none_of(workers_.begin(), workers_.end(), [](const auto& worker) {
    return worker->session != nullptr && worker->session->closed();
  });
}

void Supervisor::hand_over(RecordWriter& record) const {
  devices_.hand_over(record);
  for (const auto& each : workers_) {
    const Worker& worker = *each;
    CarriedWorker carried;
    ConfigTexts texts;
    WorkerSession::CarriedTexts of_session;
    describe(worker.config, carried, texts);
    carried.state = static_cast<uint64_t>(worker.state);
    carried.pid = static_cast<uint64_t>(worker.child.pid());
    carried.start_ns = worker.start_ns;
    carried.ready_ns = worker.ready_ns;
    carried.kill_ns = worker.kill_ns;
    carried.killed = worker.killed ? 1 : 0;
    carried.ordered = worker.ordered ? 1 : 0;
    carried.restarts = worker.restarts;
    carried.backoff_ns = worker.backoff.next_ns();
    carried.retired = worker.retired ? 1 : 0;
    carried.end = worker.end;
    carried.last_error = worker.last_error;
    if (worker.seat != nullptr) {
      carried.busy = worker.seat->busy();
      carried.granted_bytes = worker.seat->granted_bytes();
    }
    if (worker.session != nullptr && !worker.session->closed()) {
      worker.session->hand_over(carried, of_session);
    }
    record.add(carried);
    if (worker.session != nullptr && !worker.session->closed()) {
      worker.session->hand_over_given(record);
    }
  }
  devices_.hand_over_claims(record, [this](const Seat& seat) {
    const auto found = std::find_if(workers_.begin(), workers_.end(), [&](const auto& worker) {
      return worker->seat.get() == &seat;
    });
    return found == workers_.end() ? std::string_view() : std::string_view((*found)->config.name);
  });
  scaling_.each([&](const std::string& worker, uint32_t processes, bool by_load) {
    record.add(
        CarriedScale{.worker = worker, .processes = processes, .by_load = by_load ? 1U : 0U});
  });
}

Status Supervisor::keep_over_exec(bool keep) const {
  if (!devices_.keep_over_exec(keep)) {
    return Error{"a device's lock cannot be handed over"};
  }
  for (const auto& worker : workers_) {
    if (worker->session != nullptr && !worker->session->closed()) {
      if (Status kept = penstock::queue::keep_over_exec(worker->session->fd(), keep); !kept) {
        return kept;
      }
    }
  }
  return Ok{};
}

size_t Supervisor::processes() const {
  return static_cast<size_t>(
      std::count_if(workers_.begin(), workers_.end(),
                    [](const auto& worker) { return worker->state != State::kWaiting; }));
}

Supervisor::Worker* Supervisor::find_process(std::string_view name) {
  const auto found = std::find_if(workers_.begin(), workers_.end(),
                                  [&](const auto& each) { return each->config.name == name; });
  return found == workers_.end() ? nullptr : found->get();
}

Status Supervisor::take_over(RecordReader& record, JobsHandOver& jobs) {
  Status taken = Ok{};
  record.on<CarriedWorker>([&](const CarriedWorker& worker) { taken = take_over(worker, jobs); });
  record.on<CarriedGiven>([&](const CarriedGiven& given) {
    WorkerSession* const session = workers_.empty() ? nullptr : workers_.back()->session.get();
    if (session != nullptr) {
      session->take_over(given, jobs.find(given.job_high, given.job_low));
    }
  });
  record.on<CarriedClaim>([&](const CarriedClaim& claim) {
    taken_claims_.push_back({std::string(claim.worker), claim.number, claim.bytes});
  });
  record.on<CarriedLock>([&](const CarriedLock& lock) {
    if (!lock.name.empty()) {
      devices_.take_over(lock, connections_.now_ns());
    }
  });
  record.on<CarriedDevice>([&](const CarriedDevice& device) { devices_.take_over(device); });
  record.on<CarriedScale>([&](const CarriedScale& scale) {
    const std::string worker(scale.worker);
    const auto processes = static_cast<uint32_t>(scale.processes);
    scale.by_load != 0 ? scaling_.set_by_load(worker, processes) : scaling_.set(worker, processes);
  });
  return taken;
}

Status Supervisor::take_over(const CarriedWorker& carried, JobsHandOver& jobs) {
  Worker& worker = *workers_.emplace_back(std::make_unique<Worker>());
  worker.config = config_of(carried);
  worker.state = static_cast<State>(
      std::min<uint64_t>(carried.state, static_cast<uint64_t>(State::kDraining)));
  if (carried.pid != 0) {
    worker.child = Child(static_cast<pid_t>(carried.pid));
  }
  worker.start_ns = carried.start_ns;
  worker.ready_ns = carried.ready_ns;
  worker.kill_ns = carried.kill_ns;
  worker.killed = carried.killed != 0;
  worker.ordered = carried.ordered != 0;
  worker.restarts = carried.restarts;
  worker.backoff = RestartBackoff::from(carried.backoff_ns);
  worker.retired = carried.retired != 0;
  worker.end = carried.end;
  worker.last_error = carried.last_error;
  if (worker.state == State::kWaiting) {
    return Ok{};
  }
  devices_.take_over(worker.config);
  worker.seat = devices_.seat(worker.config);
  worker.seat->take_over(static_cast<uint32_t>(carried.busy), carried.granted_bytes);
  if (carried.has_fd == 0) {  // only its end is still to come
    return Ok{};
  }
  auto fd = take_descriptor(carried.fd);
  if (!fd) {
    return fd.error();
  }
  Scheduler& scheduler = dispatcher_.scheduler();
  Scheduler::Queue* queue = scheduler.find_queue(worker.config.queue);
  if (queue == nullptr) {
    queue = &jobs.stand_in(worker.config.queue);
  }
  worker.session = std::make_unique<WorkerSession>(
      connections_, *std::move(fd), dispatcher_, *this, worker.config.name,
      scheduler.lane(*queue, worker.config.model_name), *worker.seat,
      dispatcher_.paces().of(worker.config));
  if (Status opened = worker.session->open(); !opened) {
    return opened;
  }
  worker.session->take_over(carried);
  if (worker.session->ready()) {
    jobs.adopt(*worker.session);
  }
  return Ok{};
}

void Supervisor::excuse_silence() {
  for (const auto& worker : workers_) {
    if (worker->session != nullptr) {
      worker->session->excuse_silence(connections_.now_ns());
    }
  }
}

// Once it is known who serves what, and what devices may hold.
void Supervisor::announce() {
  const int64_t now_ns = connections_.now_ns();
  for (const auto& worker : workers_) {
    if (worker->session == nullptr || worker->retired) {
      continue;
    }
    dispatcher_.served().starting(worker->config.name, worker->start_ns);
    if (worker->state == State::kReady && worker->session->is_out()) {
      dispatcher_.served().expect(worker->config.name, worker->session->reopens_ns());
    } else if (worker->state == State::kReady) {
      dispatcher_.served().ready(worker->config.name, worker->ready_ns);
    }
  }
  tell_log(config_.log.settings);
  reap();  // who has ended meanwhile
  for (const TakenClaim& claim : std::exchange(taken_claims_, {})) {
    Worker* const worker = find_process(claim.worker);
    if (worker != nullptr && worker->session != nullptr) {
      worker->session->claim_again(claim.number, claim.bytes);
    }
  }
  dispatcher_.recount();
  dispatcher_.fill_all();
  advance_to(now_ns);
}

}  // namespace penstock::queue
