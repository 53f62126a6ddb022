#include "worker/queue/server.h"

#include <fmt/format.h>
#include <algorithm>
#include <filesystem>
#include <utility>

#include "shared/base/units.h"
#include "worker/queue/config/load_config.h"
#include "worker/queue/jobs/job_view.h"
#include "worker/queue/link/signals.h"
#include "worker/queue/publish/status_report.h"
#include "worker/queue/text/json.h"
#include "worker/queue/traces/job_trace.h"

namespace penstock::queue {
namespace {

constexpr int64_t kWorkerExitNs = 5 * kNsPerSec;  // once no job is left
constexpr int64_t kSweepNs = 10 * kNsPerSec;
constexpr int kMostRounds = 1000;          // of 256 who are ready, after a stall
constexpr int64_t kHealthyNs = kNsPerSec;  // without a write that fails

}  // namespace

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
  store_->find(id, [this, told = std::move(told)](const std::optional<JobRecord>& job) {
    if (!job || !has_ended(job->status) || job->callback.empty()) {
      return told(std::nullopt);
    }
    told(Webhooks::Message{job->callback, ending_json(view_of(*job), name_of(job->status)),
                           trace_headers(job->trace, config_.traces.on())});
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

int Server::run() {
  connections_.read_clock();
  if (upgrade_.count > 0) {
    clock_.came_due(start_ns_);  // a large state may have taken long to read
    connections_.read_clock();
    supervisor_.excuse_silence();
  }
  device_watch_.on_change = [this] { devices_changed_ = true; };
  device_watch_.apply(config_);
  supervisor_.observe(device_watch_);
  supervisor_.apply(config_);
  if (upgrade_.count > 0) {
    supervisor_.announce();
  }
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
  if (shared_ != nullptr) {
    shared_->advance();
  }
  dispatcher_.advance_to(now_ns);
  if (upgrade_.phase == Upgrade::Phase::kSettling) {
    supervisor_.excuse_silence();
  }
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
  spans_.advance_to(now_ns);
  secrets_.advance_to(config_, now_ns);
  note_health(now_ns);
  if (store_ != nullptr && sweep_due_ns_ <= now_ns) {
    sweep(now_ns);
  }
  if (webhooks_ != nullptr) {
    webhooks_->advance_to(now_ns, dispatcher_.wall_ms());
    notices_->advance_to(now_ns, dispatcher_.wall_ms());
  }
  if (telling_ != nullptr) {
    telling_->advance_to(now_ns, dispatcher_.wall_ms());
  }
  publish(now_ns);
  manager_.advance_to(now_ns, [this] { return status_line(); });
  connections_.flush();
  advance_upgrade(now_ns);
  log_turns_.end_turn(now_ns);
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
                   publisher_.next_event(), history_.next_event(), manager_.next_event(),
                   spans_.next_event(), secrets_.next_event(), phase_ends_ns_, upgrade_.ends_ns,
                   upgrade_.successor != nullptr ? upgrade_.successor->next_event() : INT64_MAX,
                   store_ != nullptr ? sweep_due_ns_ : INT64_MAX,
                   webhooks_ != nullptr ? webhooks_->next_event() : INT64_MAX,
                   notices_ != nullptr ? notices_->next_event() : INT64_MAX,
                   telling_ != nullptr ? telling_->next_event() : INT64_MAX,
                   shared_ != nullptr ? shared_->next_event(clock_.now_ns()) : INT64_MAX});
}

void Server::read_signals() {
  connections_.read_clock();
  while (const int number = next_signal(signals_)) {
    switch (number) {
      case SIGCHLD:
        reap_strangers();
        if (upgrade_.successor != nullptr) {
          upgrade_.successor->reap();
        }
        supervisor_.reap();
        device_watch_.reap();
        if (notices_ != nullptr) {
          notices_->reap();
        }
        if (telling_ != nullptr) {
          telling_->reap();
        }
        break;
      case SIGHUP:
        reload();
        break;
      case SIGUSR2:
        order_upgrade(nullptr, false);
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
  dispatcher_.metrics().page().config_refused = apply_new_config() ? 0 : 1;
  manager_.ready();
}

bool Server::apply_new_config() {
  auto fresh = load_config(config_path_);
  if (!fresh) {
    log(Level::kError, "reload refused, the configuration before it stays in force:");
    const std::string& text = fresh.error().message;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      log(Level::kError, text.substr(at, end - at));
      at = end + 1;
    }
    return false;
  }
  if (fresh->socket != config_.socket || fresh->socket_mode != config_.socket_mode ||
      fresh->socket_group != config_.socket_group) {
    log(Level::kWarn, "socket, socket_mode and socket_group change with a restart only");
    fresh->socket = config_.socket;
    fresh->socket_mode = config_.socket_mode;
    fresh->socket_group = config_.socket_group;
    fresh->settings.keep({"socket", "socket_mode", "socket_group"}, config_.settings);
  }
  bool usable = true;
  if (auto roles = Roles::create(fresh->access, fresh->socket_group); !roles) {
    usable = false;
    log(Level::kError, roles.error().message + "; access goes on as before");
  } else {
    callers_.set_roles(*std::move(roles));
  }
  if (fresh->state != config_.state) {
    log(Level::kWarn, "state changes with a restart only");
    fresh->state = config_.state;
    fresh->settings.keep({"state"}, config_.settings);
  }
  keep_shared(*fresh);
  if (webhooks_ != nullptr) {
    if (Status applied = webhooks_->apply(fresh->webhooks); !applied) {
      usable = false;
      log(Level::kError, applied.error().message + "; webhooks go on as before");
    }
    notices_->apply(fresh->notify);
  }
  if (telling_ != nullptr) {
    if (Status applied = telling_->apply(*fresh); !applied) {
      usable = false;
      log(Level::kError, applied.error().message + "; webhooks go on as before");
    }
  }
  checks_.apply(fresh->challenges);
  spans_.apply(fresh->traces);
  tell_changes(*fresh);
  config_ = *std::move(fresh);
  secrets_.look_soon();
  set_log(config_.log.settings);
  orders_.reloaded(config_.digest);
  if (store_ != nullptr) {
    store_->set_max_bytes(config_.limits.max_state_bytes, config_.limits.max_share_bytes());
    apply_ledger(config_.ledger);
  }
  callers_.set_limits(config_.limits);
  device_watch_.apply(config_);
  supervisor_.observe(device_watch_);
  supervisor_.apply(config_);
  log(Level::kInfo, "reloaded " + config_path_);
  return usable;
}

// Which queues are shared, by which Redis and with which results, changes with a restart only.
void Server::keep_shared(Config& fresh) const {
  bool changed = fresh.redis != config_.redis || fresh.results != config_.results;
  fresh.redis = config_.redis;
  fresh.results = config_.results;
  fresh.settings.keep_below("redis.", config_.settings);
  fresh.settings.keep_below("results.", config_.settings);
  for (QueueConfig& queue : fresh.queues) {
    const bool shared = shared_ != nullptr && shared_->find(queue.name) != nullptr;
    if (std::exchange(queue.shared, shared) != shared) {
      changed = true;
      fresh.settings.keep({("queues." + queue.name + ".shared").c_str()}, config_.settings);
    }
  }
  if (changed) {
    log(Level::kWarn, "redis, results, and which queues are shared, change with a restart only");
  }
}

void Server::tell_changes(const Config& fresh) {
  constexpr size_t kMost = 50;
  std::vector<std::string> changes = fresh.settings.changes_since(config_.settings);
  const size_t left_out = changes.size() - std::min(changes.size(), kMost);
  if (left_out > 0) {
    changes.resize(kMost);
    changes.push_back(std::to_string(left_out) +
                      " more changes; penstockd -d OLD -c NEW tells all");
  }
  for (const std::string& change : changes) {
    log(Level::kInfo, "changed: " + change);
    operator_api_.note_change(config_path_, change);
  }
}

std::string Server::changes_json() const {
  JsonObject object;
  std::error_code unknown;
  const auto whole = std::filesystem::absolute(config_path_, unknown);
  object.text("file", unknown ? config_path_ : whole.string());
  JsonList changes;
  const auto fresh = load_config(config_path_, NamedFiles::kTrusted);
  if (fresh) {
    for (const std::string& change : fresh->settings.changes_since(config_.settings)) {
      changes.add(json_string(change));
    }
  }
  return object.raw("changes", changes.done())
      .text_or_null("error", fresh ? "" : fresh.error().message)
      .done();
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
    if (shared_ != nullptr) {
      shared_->leave();
    }
    phase_ = Phase::kStopping;
    phase_ends_ns_ = now_ns + kWorkerExitNs;
    supervisor_.shut_down(phase_ends_ns_);
    device_watch_.stop();
  }
  const bool left = shared_ == nullptr || shared_->has_left();
  if (phase_ == Phase::kStopping &&
      ((supervisor_.all_gone() && left) || now_ns >= phase_ends_ns_)) {
    if (shared_ != nullptr) {
      shared_->over();
    }
    log(Level::kInfo, "stopped");
    phase_ = Phase::kOver;
  }
}

void Server::publish(int64_t now_ns) {
  dispatcher_.metrics().page().unreadable_files = secrets_.unreadable();
  publisher_.publish({.dispatcher = dispatcher_,
                      .supervisor = supervisor_,
                      .autoscaler = autoscaler_,
                      .device_watch = device_watch_,
                      .webhooks = webhooks_.get(),
                      .notices = notices_.get(),
                      .telling = telling_.get()},
                     clock_, now_ns);
  history_.advance(dispatcher_, now_ns);
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
                        .edges = callers_.edge_versions(),
                        .uptime_s = (connections_.now_ns() - start_ns_) / kNsPerSec});
}

}  // namespace penstock::queue
