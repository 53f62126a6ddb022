#include "worker/queue/server.h"

#include <fmt/format.h>
#include <algorithm>

#include "shared/base/units.h"
#include "worker/queue/config/load_config.h"
#include "worker/queue/jobs/job_view.h"
#include "worker/queue/link/signals.h"
#include "worker/queue/publish/status_report.h"
#include "worker/queue/text/json.h"

namespace penstock::queue {
namespace {

constexpr int64_t kWorkerExitNs = 5 * kNsPerSec;  // once no job is left
constexpr int64_t kSweepNs = 10 * kNsPerSec;
constexpr int kMostRounds = 1000;          // of 256 who are ready, after a stall
constexpr int64_t kHealthyNs = kNsPerSec;  // without a write that fails

wire::Limits wire_limits(const Config& config) {
  wire::Limits limits;
  limits.submit_bytes = static_cast<uint32_t>(config.limits.max_body_bytes + (64 << 10));
  return limits;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::open(Config config, std::string config_path) {
  const Access access{config.socket_mode, config.socket_group};
  auto manager = ServiceManager::from_environment();
  if (!manager) {
    return manager.error();
  }
  auto signals = open_signals();
  if (!signals) {
    return signals.error();
  }
  const EndOnStop end_on_stop(*signals);
  auto loop = EventLoop::create();
  if (!loop) {
    return loop.error();
  }
  auto roles = Roles::create(config.access, config.socket_group);
  if (!roles) {
    return roles.error();
  }
  auto listener = Listener::claim(config.socket, manager->take_socket());
  if (!listener) {
    return listener.error();
  }
  auto publisher = Publisher::create(config.socket, access);
  if (!publisher) {
    return publisher.error();
  }
  std::unique_ptr<Store> store;
  if (!config.state.empty()) {
    auto opened =
        Store::open({.folder = config.state,
                     .group = config.socket_group,
                     .max_bytes = config.limits.max_state_bytes,
                     .max_share_bytes = config.limits.max_share_bytes(),
                     .reserve_bytes = static_cast<uint64_t>(config.limits.reserve_bytes)});
    if (!opened) {
      return opened.error();
    }
    store = *std::move(opened);
  }
  std::unique_ptr<Server> server(
      new Server(std::move(config), std::move(config_path), *std::move(manager), *std::move(loop),
                 *std::move(listener), *std::move(publisher), *std::move(signals), std::move(store),
                 *std::move(roles)));
  if (Status recovered = server->recover(); !recovered) {
    return recovered.error();
  }
  server->callers_.on_worker_connected = [&to = server->supervisor_](auto&&... said) {
    return to.attach(said...);
  };
  if (Status listens = server->callers_.listen(access); !listens) {
    return listens.error();
  }
  for (const auto& [fd, watch] :
       {std::pair{server->signals_.get(), &server->signal_watch_},
        {server->store_ != nullptr ? server->store_->event_fd() : -1, &server->store_watch_}}) {
    if (Status added = fd < 0 ? Ok{} : server->loop_.add(fd, EPOLLIN, watch); !added) {
      return added.error();
    }
  }
  return server;
}

// What was promised in an earlier life stands in its queue before anybody is listened to.
Status Server::recover() {
  connections_.read_clock();
  dispatcher_.apply(config_);
  if (store_ == nullptr) {
    return Ok{};
  }
  for (const std::string& notice : store_->notices()) {
    log(Level::kWarn, notice);
  }
  dispatcher_.use(*store_);
  auto paces = PaceFile::open(config_.state + "/paces", connections_.now_ns(),
                              dispatcher_.wall_ms() * kNsPerMs);
  if (paces) {
    dispatcher_.paces().keep_in(*std::move(paces));
  } else {
    log(Level::kError, paces.error().message + "; what workers used of their limits is forgotten");
  }
  intake_.set_secret(store_->secret());
  webhooks_ = std::make_unique<Webhooks>(Webhooks::Calls{
      .message = [this](const JobId& id, auto told) { ask_message(id, std::move(told)); },
      .tried = [this](const JobId& id, uint32_t tries,
                      int64_t due_ms) { store_->delivered(id, tries, due_ms); },
      .due = [this](const DueQuery& query, auto told) { store_->due(query, std::move(told)); },
      .gone = [this](const std::string& url) { store_->disable_url(url); }});
  if (Status added = loop_.add(webhooks_->event_fd(), EPOLLIN, &webhook_watch_); !added) {
    return added;
  }
  if (Status applied = webhooks_->apply(config_.webhooks); !applied) {
    return applied;
  }
  intake_.check_callback = [this](std::string_view url) { return webhooks_->check(url); };
  dispatcher_.on_callback_due = [this](const JobId& id, uint64_t share) {
    webhooks_->add({.id = id, .owner = share});
  };
  doubt_clock();
  size_t jobs = 0;
  Status recovered = store_->recover(
      [&](JobRecord&& record) {
        ++jobs;
        dispatcher_.restore(std::move(record));
      },
      [this](const std::string& url) { webhooks_->set_gone(url); });
  if (jobs > 0) {
    log(Level::kInfo, std::to_string(jobs) + " promised jobs are queued again");
  }
  if (!recovered) {
    return recovered;
  }
  recovered = store_->unsettled(EdgeLines::kMaxPending,
                                [this](JobRecord&& record) { dispatcher_.restore_over(record); });
  return recovered ? recover_orders() : recovered;
}

Status Server::recover_orders() {
  auto found = orders_.recover(config_.digest);
  if (!found) {
    return found.error();
  }
  if (found->forgotten) {
    log(Level::kWarn,
        config_path_ + " has changed: what was paused or scaled before this start is as it says");
  }
  for (const std::string& name : found->paused) {
    if (Scheduler::Queue* const queue = dispatcher_.scheduler().find_queue(name)) {
      dispatcher_.pause(*queue);
      log(Level::kWarn, "queue " + name + ": is paused, as before this start");
    }
  }
  for (const auto& [worker, processes] : found->scaled) {
    supervisor_.was_scaled(worker, processes);
    log(Level::kWarn,
        fmt::format("worker {}: is scaled to {}, as before this start", worker, processes));
  }
  return Ok{};
}

void Server::doubt_clock() {
  clock_doubt_.emplace(store_->newest_ms(), dispatcher_.wall_ms(), connections_.now_ns());
  dispatcher_.clock_doubted = clock_doubt_->holds(connections_.now_ns());
  if (dispatcher_.clock_doubted) {
    log(Level::kError,
        fmt::format("the clock is {} s {} the latest job on disk, and not synchronised: nothing "
                    "expires by it until it is, for 10 minutes at most; deadlines begin anew",
                    std::abs(clock_doubt_->off_ms()) / 1000,
                    clock_doubt_->off_ms() > 0 ? "ahead of" : "behind"));
  }
}

// What goes by the time of day, once that is to be believed.
void Server::sweep(int64_t now_ns) {
  sweep_due_ns_ = now_ns + kSweepNs;
  if (clock_doubt_ && clock_doubt_->holds(now_ns)) {
    return;
  }
  if (clock_doubt_ && clock_doubt_->off_ms() < -ClockDoubt::kMostMs) {
    store_->clamp_expiries(dispatcher_.keeping_ms());
  }
  clock_doubt_.reset();
  dispatcher_.clock_doubted = false;
  store_->sweep(dispatcher_.keeping_ms());
}

// What a webhook says of a job: its end, as its owner would see it.
void Server::ask_message(const JobId& id,
                         std::function<void(std::optional<Webhooks::Message>)> told) {
  store_->find(id, [told = std::move(told)](const std::optional<JobRecord>& job) {
    if (!job || !has_ended(job->status) || job->callback.empty()) {
      return told(std::nullopt);
    }
    told(Webhooks::Message{job->callback,
                           JsonObject()
                               .text("type", "job." + std::string(name_of(job->status)))
                               .text("timestamp", iso_time(job->end.finished_ms))
                               .raw("data", render(view_of(*job)))
                               .done()});
  });
}

void Server::tell_webhooks() {
  connections_.read_clock();
  webhooks_->take_responses(connections_.now_ns(), dispatcher_.wall_ms());
}

void Server::tell_store_done() {
  connections_.read_clock();
  store_->tell_done();
}

Server::Server(Config config, std::string config_path, ServiceManager manager, EventLoop loop,
               Listener listener, Publisher publisher, Fd signals, std::unique_ptr<Store> store,
               Roles roles)
    : config_(std::move(config)),
      config_path_(std::move(config_path)),
      manager_(std::move(manager)),
      loop_(std::move(loop)),
      publisher_(std::move(publisher)),
      signals_(std::move(signals)),
      connections_(loop_, wire_limits(config_), [this] { return clock_.now_ns(); }),
      store_(std::move(store)),
      dispatcher_(connections_),
      intake_(dispatcher_, realtime_ns() / kNsPerSec),
      supervisor_(connections_, dispatcher_, config_.socket + ".device."),
      callers_(loop_, connections_, std::move(listener), std::move(roles), handlers_,
               [this] { return status_json(); }),
      start_ns_(clock_.now_ns()) {
  callers_.set_limits(config_.limits);
}

int Server::run() {
  connections_.read_clock();
  device_watch_.on_change = [this] { devices_changed_ = true; };
  device_watch_.apply(config_);
  supervisor_.observe(device_watch_);
  supervisor_.apply(config_);
  publish(connections_.now_ns());
  log(Level::kInfo, "penstockd: ready on " + config_.socket);
  manager_.ready();
  turned_ns_ = clock_.now_ns();
  while (phase_ != Phase::kOver) {
    turn();
  }
  return 0;
}

void Server::turn() {
  hear();
  const int64_t now_ns = turned_ns_ = clock_.now_ns();
  connections_.set_now(now_ns);
  connections_.reap();
  callers_.advance_to(now_ns);
  dispatcher_.advance_to(now_ns);
  supervisor_.advance_to(now_ns);
  device_watch_.advance_to(now_ns);
  if (devices_changed_ || devices_known_ != device_watch_.known()) {
    devices_changed_ = false;
    devices_known_ = device_watch_.known();
    supervisor_.observe(device_watch_);
    supervisor_.advance_to(now_ns);
  }
  if (phase_ == Phase::kServing) {
    autoscaler_.advance_to(config_, now_ns);
  }
  if (phase_ != Phase::kServing) {
    advance_stop(now_ns);
  }
  note_health(now_ns);
  if (store_ != nullptr && sweep_due_ns_ <= now_ns) {
    sweep(now_ns);
  }
  if (webhooks_ != nullptr) {
    webhooks_->advance_to(now_ns, dispatcher_.wall_ms());
  }
  publish(now_ns);
  manager_.advance_to(now_ns, [this] { return status_line(); });
  connections_.flush();
}

// Whoever is ready is told. If this comes late, it was we who slept: what others said meanwhile is
// heard to the end before anybody is judged by the time.
void Server::hear() {
  const int64_t due_ns = next_event();
  loop_.wait(clock_.now_ns(), due_ns);
  const int64_t stall_ns = clock_.came_due(std::max(turned_ns_, due_ns));
  loop_.tell();
  if (stall_ns == 0) {
    return;
  }
  log(Level::kWarn, "penstockd did not run for " + format_duration(stall_ns / kNsPerMs * kNsPerMs) +
                        "; time limits go on from where they were");
  dispatcher_.note_stall(stall_ns);
  for (int i = 0; i < kMostRounds && loop_.run_once(0, 0) > 0; ++i) {
  }
}

// Promises stop while writes fail: whoever runs this must see it, each failure, yet not a line for
// each where some succeed in between.
void Server::note_health(int64_t now_ns) {
  if (store_ == nullptr) {
    return;
  }
  const uint64_t errors = store_->figures().write_errors;
  if (errors != write_errors_) {
    write_errors_ = errors;
    write_error_ns_ = now_ns;
    if (!state_broken_) {
      log(Level::kError, "no jobs are promised: " + store_->last_fault());
    }
    state_broken_ = true;
  } else if (state_broken_ && now_ns - write_error_ns_ >= kHealthyNs && store_->health()) {
    state_broken_ = false;
    log(Level::kInfo, "jobs are written to disk again, and promised");
  }
}

int64_t Server::next_event() const {
  return std::min({connections_.next_event(), callers_.next_event(), dispatcher_.next_event(),
                   supervisor_.next_event(), autoscaler_.next_event(), device_watch_.next_event(),
                   publisher_.next_event(), manager_.next_event(), phase_ends_ns_,
                   store_ != nullptr ? sweep_due_ns_ : INT64_MAX,
                   webhooks_ != nullptr ? webhooks_->next_event() : INT64_MAX});
}

void Server::read_signals() {
  connections_.read_clock();
  while (const int number = next_signal(signals_)) {
    switch (number) {
      case SIGCHLD:
        supervisor_.reap();
        device_watch_.reap();
        break;
      case SIGHUP:
        reload();
        break;
      default:
        stop();
    }
  }
}

void Server::reload() {
  if (phase_ != Phase::kServing) {
    return;
  }
  manager_.reloading(monotonic_ns());
  apply_new_config();
  manager_.ready();
}

void Server::apply_new_config() {
  auto fresh = load_config(config_path_);
  if (!fresh) {
    log(Level::kError, "reload refused, the configuration before it stays in force:");
    const std::string& text = fresh.error().message;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      log(Level::kError, text.substr(at, end - at));
      at = end + 1;
    }
    return;
  }
  if (fresh->socket != config_.socket || fresh->socket_mode != config_.socket_mode ||
      fresh->socket_group != config_.socket_group) {
    log(Level::kWarn, "socket, socket_mode and socket_group change with a restart only");
    fresh->socket = config_.socket;
    fresh->socket_mode = config_.socket_mode;
    fresh->socket_group = config_.socket_group;
  }
  if (auto roles = Roles::create(fresh->access, fresh->socket_group); !roles) {
    log(Level::kError, roles.error().message + "; access goes on as before");
  } else {
    callers_.set_roles(*std::move(roles));
  }
  if (fresh->state != config_.state) {
    log(Level::kWarn, "state changes with a restart only");
    fresh->state = config_.state;
  }
  if (webhooks_ != nullptr) {
    if (Status applied = webhooks_->apply(fresh->webhooks); !applied) {
      log(Level::kError, applied.error().message + "; webhooks go on as before");
    }
  }
  config_ = *std::move(fresh);
  orders_.reloaded(config_.digest);
  if (store_ != nullptr) {
    store_->set_max_bytes(config_.limits.max_state_bytes, config_.limits.max_share_bytes());
  }
  callers_.set_limits(config_.limits);
  device_watch_.apply(config_);
  supervisor_.observe(device_watch_);
  supervisor_.apply(config_);
  log(Level::kInfo, "reloaded " + config_path_);
}

// TERM or INT. The first lets jobs finish; the second does not.
void Server::stop() {
  if (phase_ != Phase::kServing) {
    log(Level::kWarn, "stopping at once");
    phase_ = Phase::kOver;
    return;
  }
  log(Level::kInfo, fmt::format("stopping: {} jobs have {} to finish", dispatcher_.unfinished(),
                                format_duration(config_.drain_timeout_ns)));
  manager_.stopping();
  dispatcher_.drain();
  phase_ = Phase::kFinishing;
  phase_ends_ns_ = connections_.now_ns() + config_.drain_timeout_ns;
}

void Server::advance_stop(int64_t now_ns) {
  if (phase_ == Phase::kFinishing && (dispatcher_.unfinished() == 0 || now_ns >= phase_ends_ns_)) {
    if (const size_t left = dispatcher_.unfinished(); left > 0) {
      log(Level::kWarn, std::to_string(left) + " jobs were not finished in time");
      dispatcher_.give_up();
    }
    phase_ = Phase::kStopping;
    phase_ends_ns_ = now_ns + kWorkerExitNs;
    supervisor_.shut_down(phase_ends_ns_);
    device_watch_.stop();
  }
  if (phase_ == Phase::kStopping && (supervisor_.all_gone() || now_ns >= phase_ends_ns_)) {
    log(Level::kInfo, "stopped");
    phase_ = Phase::kOver;
  }
}

void Server::publish(int64_t now_ns) {
  publisher_.publish({.dispatcher = dispatcher_,
                      .supervisor = supervisor_,
                      .autoscaler = autoscaler_,
                      .device_watch = device_watch_,
                      .webhooks = webhooks_.get()},
                     clock_, now_ns);
}

std::string Server::status_line() const {
  const auto& workers = supervisor_.workers();
  const auto ready = std::count_if(workers.begin(), workers.end(), [](const auto& worker) {
    return worker->state == Supervisor::Worker::State::kReady;
  });
  return fmt::format("{} jobs; {} of {} workers ready{}", dispatcher_.jobs(), ready, workers.size(),
                     state_broken_ ? "; no jobs are promised, as writing fails" : "");
}

std::string Server::status_json() {
  return report_status({.config = config_,
                        .dispatcher = dispatcher_,
                        .supervisor = supervisor_,
                        .device_watch = device_watch_,
                        .protocol_errors = connections_.protocol_errors(),
                        .connections = callers_.connections(),
                        .uptime_s = (connections_.now_ns() - start_ns_) / kNsPerSec});
}

}  // namespace penstock::queue
