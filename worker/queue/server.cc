#include "worker/queue/server.h"

#include <sys/resource.h>

#include <algorithm>

#include "shared/base/units.h"
#include "worker/queue/jobs/job_view.h"
#include "worker/queue/link/signals.h"
#include "worker/queue/publish/page_rows.h"
#include "worker/queue/publish/status_report.h"

namespace penstock::queue {
namespace {

constexpr int kAcceptsPerTurn = 64;
constexpr int64_t kAcceptPauseNs = 100 * kNsPerMs;
constexpr int64_t kWorkerExitNs = 5 * kNsPerSec;  // once no job is left
constexpr int64_t kSweepNs = 10 * kNsPerSec;
constexpr int kMostRounds = 1000;          // of 256 who are ready, after a stall
constexpr int64_t kMetricsNs = kNsPerSec;  // between two pages of figures
constexpr int64_t kHealthyNs = kNsPerSec;  // without a write that fails
constexpr rlim_t kOtherDescriptors = 512;  // beside the callers' connections
constexpr size_t kMaxStrangers = 64;
constexpr size_t kOperatorsSeats = 16;  // beyond max_connections, so that one can look

// Each connection takes a descriptor; asks for as many as may be had. Returns how many connections
// there are descriptors for: what else needs a file must find one.
size_t raise_descriptor_limit(uint32_t max_connections) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t wanted = max_connections + kOtherDescriptors;
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = std::min(wanted, limit.rlim_max);
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= wanted) {
    return max_connections;
  }
  // Of few, a half is for callers.
  const size_t most = limit.rlim_cur > 2 * kOtherDescriptors ? limit.rlim_cur - kOtherDescriptors
                                                             : limit.rlim_cur / 2;
  log(Level::kWarn, "only " + std::to_string(limit.rlim_cur) +
                        " files may be open: " + std::to_string(most) +
                        " connections are taken, not the " + std::to_string(max_connections) +
                        " of limits.max_connections; raise LimitNOFILE (ulimit -n)");
  return most;
}

wire::Limits wire_limits(const Config& config) {
  wire::Limits limits;
  limits.submit_bytes = static_cast<uint32_t>(config.limits.max_body_bytes + (64 << 10));
  return limits;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::open(Config config, std::string config_path) {
  const Access access{config.socket_mode, config.socket_group};
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
  auto listener = Listener::claim(config.socket);
  if (!listener) {
    return listener.error();
  }
  auto page = StatusPageWriter::create(config.socket + ".status", access);
  if (!page) {
    return page.error();
  }
  auto metrics =
      PublishedFile::create(config.socket + ".metrics", access, bytes_of(wire::MetricsPage()));
  if (!metrics) {
    return metrics.error();
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
      new Server(std::move(config), std::move(config_path), *std::move(loop), *std::move(listener),
                 *std::move(page), *std::move(metrics), *std::move(signals), std::move(store),
                 *std::move(roles)));
  if (Status recovered = server->recover(); !recovered) {
    return recovered.error();
  }
  if (Status listens = server->listener_.listen(access); !listens) {
    return listens.error();
  }
  for (const auto& [fd, watch] :
       {std::pair{server->listener_.fd(), &server->accept_watch_},
        {server->signals_.get(), &server->signal_watch_},
        {server->store_ != nullptr ? server->store_->event_fd() : -1, &server->store_watch_}}) {
    if (Status added = fd < 0 ? Ok{} : server->loop_.add(fd, EPOLLIN, watch); !added) {
      return added.error();
    }
  }
  return server;
}

// What was promised in an earlier life stands in its queue before anybody is listened to.
Status Server::recover() {
  wires_.set_now(clock_.now_ns());
  dispatcher_.apply(config_);
  if (store_ == nullptr) {
    return Ok{};
  }
  for (const std::string& notice : store_->notices()) {
    log(Level::kWarn, notice);
  }
  dispatcher_.use(*store_);
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
    log(Level::kWarn, "worker " + worker + ": is scaled to " + std::to_string(processes) +
                          ", as before this start");
  }
  return Ok{};
}

void Server::doubt_clock() {
  clock_doubt_.emplace(store_->newest_ms(), dispatcher_.wall_ms(), wires_.now_ns());
  dispatcher_.clock_doubted = clock_doubt_->holds(wires_.now_ns());
  if (dispatcher_.clock_doubted) {
    log(Level::kError, "the clock is " + std::to_string(std::abs(clock_doubt_->off_ms()) / 1000) +
                           " s " + (clock_doubt_->off_ms() > 0 ? "ahead of" : "behind") +
                           " the latest job on disk, and not synchronised: nothing expires by it "
                           "until it is, for 10 minutes at most; deadlines begin anew");
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
    std::string json = R"({"type":"job.)" + std::string(name_of(job->status)) +
                       R"(","timestamp":")" + iso_time(job->end.finished_ms) + R"(","data":)" +
                       render(view_of(*job)) + "}";
    told(Webhooks::Message{job->callback, std::move(json)});
  });
}

void Server::tell_webhooks() {
  wires_.set_now(clock_.now_ns());
  webhooks_->take_responses(wires_.now_ns(), dispatcher_.wall_ms());
}

void Server::tell_store_done() {
  wires_.set_now(clock_.now_ns());
  store_->tell_done();
}

Server::Server(Config config, std::string config_path, EventLoop loop, Listener listener,
               StatusPageWriter page, PublishedFile metrics, Fd signals,
               std::unique_ptr<Store> store, Roles roles)
    : config_(std::move(config)),
      config_path_(std::move(config_path)),
      loop_(std::move(loop)),
      listener_(std::move(listener)),
      page_(std::move(page)),
      metrics_file_(std::move(metrics)),
      signals_(std::move(signals)),
      wires_(loop_, wire_limits(config_), [this] { return clock_.now_ns(); }),
      store_(std::move(store)),
      dispatcher_(wires_),
      intake_(dispatcher_, realtime_ns() / kNsPerSec),
      supervisor_(wires_, dispatcher_, config_.socket + ".device."),
      roles_(std::move(roles)),
      most_callers_(raise_descriptor_limit(config_.limits.max_connections)),
      start_ns_(clock_.now_ns()) {}

Server::~Server() {
  for (auto* const list : {&newcomers_, &callers_}) {
    for (CallerSession& caller : *list) {
      caller.say_goodbye("penstockd is being stopped");
    }
  }
}

int Server::run() {
  wires_.set_now(clock_.now_ns());
  device_watch_.on_change = [this] { devices_changed_ = true; };
  device_watch_.apply(config_);
  supervisor_.observe(device_watch_);
  supervisor_.apply(config_);
  publish(wires_.now_ns());
  log(Level::kInfo, "penstockd: ready on " + listener_.path());
  turned_ns_ = clock_.now_ns();
  while (phase_ != Phase::kOver) {
    turn();
  }
  return 0;
}

void Server::turn() {
  hear();
  const int64_t now_ns = turned_ns_ = clock_.now_ns();
  wires_.set_now(now_ns);
  wires_.reap();
  send_silent_ones_away(now_ns);
  dispatcher_.advance_to(now_ns);
  supervisor_.advance_to(now_ns);
  device_watch_.advance_to(now_ns);
  if (devices_changed_ || devices_known_ != device_watch_.known()) {
    devices_changed_ = false;
    devices_known_ = device_watch_.known();
    supervisor_.observe(device_watch_);
    supervisor_.advance_to(now_ns);
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
  if (accept_again_ns_ <= now_ns) {
    accept_again_ns_ = INT64_MAX;
    loop_.modify(listener_.fd(), EPOLLIN, &accept_watch_);
  }
  publish(now_ns);
  if (metrics_due_ns_ <= now_ns) {
    publish_metrics(now_ns);
  }
  wires_.flush();
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
  return std::min({wires_.next_event(), dispatcher_.next_event(), supervisor_.next_event(),
                   device_watch_.next_event(), heartbeat_due_ns_, metrics_due_ns_,
                   page_.next_event(), accept_again_ns_, phase_ends_ns_,
                   newcomers_.empty()
                       ? INT64_MAX
                       : newcomers_.front().arrived_ns + config_.limits.hello_timeout_ns,
                   store_ != nullptr ? sweep_due_ns_ : INT64_MAX,
                   webhooks_ != nullptr ? webhooks_->next_event() : INT64_MAX});
}

void Server::accept_all() {
  wires_.set_now(clock_.now_ns());
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    Fd fd;
    switch (listener_.accept(fd)) {
      case Listener::Outcome::kAccepted:
        welcome(std::move(fd));
        break;
      case Listener::Outcome::kEmpty:
        return;
      case Listener::Outcome::kExhausted:
        return pause_accepting(wires_.now_ns());
    }
  }
}

void Server::welcome(Fd fd) {
  const Credentials peer = roles_.peer_of(fd.get());
  const bool has_room = has_room_for(peer);
  CallerSession& caller = newcomers_.emplace_back(wires_, std::move(fd), handlers_, *this, peer);
  caller.self = std::prev(newcomers_.end());
  strangers_ += peer.roles == 0 ? 1 : 0;
  if (!has_room) {
    troubles_.log(Level::kWarn,
                  peer.roles == 0 ? "a stranger's connection was refused: " + peer.text()
                                  : "a connection was refused: limits.max_connections is reached",
                  wires_.now_ns());
    caller.say_goodbye("too many connections");
  } else if (Status opened = caller.open(); !opened) {
    troubles_.log(Level::kWarn, opened.error().message, wires_.now_ns());
    caller.close();
  }
}

// Who may be nothing here is told so, but takes nobody's place.
bool Server::has_room_for(const Credentials& peer) const {
  const size_t connections = newcomers_.size() + callers_.size();
  return connections < most_callers_ + (peer.is(kOperator) ? kOperatorsSeats : 0) &&
         (peer.roles != 0 || strangers_ < kMaxStrangers);
}

// Who connects and says nothing holds a place no longer than this.
void Server::send_silent_ones_away(int64_t now_ns) {
  for (CallerSession& each : newcomers_) {
    if (each.arrived_ns + config_.limits.hello_timeout_ns > now_ns) {
      break;
    }
    each.say_goodbye("no HELLO came");
  }
}

// Out of descriptors or memory: connections wait in the kernel's backlog, and the loop does not
// spin on a listener that stays readable.
void Server::pause_accepting(int64_t now_ns) {
  troubles_.log(Level::kError,
                "no connection can be accepted: out of descriptors or memory; raise LimitNOFILE",
                now_ns);
  loop_.modify(listener_.fd(), 0, &accept_watch_);
  accept_again_ns_ = now_ns + kAcceptPauseNs;
}

void Server::read_signals() {
  wires_.set_now(clock_.now_ns());
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
    roles_ = *std::move(roles);
    strangers_ = 0;
    for (auto* const list : {&newcomers_, &callers_}) {
      for (CallerSession& caller : *list) {
        caller.set_roles(roles_.peer_of(caller.fd()).roles);
        strangers_ += caller.peer().roles == 0 && !caller.greeted() ? 1 : 0;
      }
    }
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
  most_callers_ = raise_descriptor_limit(config_.limits.max_connections);
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
  log(Level::kInfo, "stopping: " + std::to_string(dispatcher_.unfinished()) + " jobs have " +
                        format_duration(config_.drain_timeout_ns) + " to finish");
  dispatcher_.drain();
  phase_ = Phase::kFinishing;
  phase_ends_ns_ = wires_.now_ns() + config_.drain_timeout_ns;
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
  for (Scheduler::Queue& queue : dispatcher_.scheduler().queues()) {
    if (queue.retired && queue.waiting + queue.running == 0) {
      page_.retire(queue.settings.name);
      continue;
    }
    StatusPageWriter::Row row = status_row(dispatcher_, queue);
    row.returns_until_ns = clock_.real_ns(row.returns_until_ns);
    page_.set(queue.settings.name, row);
  }
  if (heartbeat_due_ns_ <= now_ns) {
    heartbeat_due_ns_ = now_ns + StatusPageWriter::kHeartbeatNs;
    page_.heartbeat(now_ns, clock_.real_ns(now_ns));
  } else {
    page_.flush(now_ns);
  }
}

void Server::publish_metrics(int64_t now_ns) {
  metrics_due_ns_ = now_ns + kMetricsNs;
  Metrics& metrics = dispatcher_.metrics();
  for (const Scheduler::Queue& queue : dispatcher_.scheduler().queues()) {
    if (queue.retired && queue.waiting + queue.running == 0) {
      continue;
    }
    wire::QueueMetrics& of = metrics.of(queue.settings.name);
    of.oldest_wait_ms = static_cast<uint64_t>(Scheduler::oldest_wait_ns(queue, now_ns) / kNsPerMs);
    of.paused = queue.paused ? 1 : 0;
  }
  wire::MetricsPage& page = metrics.page();
  if (store_ != nullptr) {
    const Store::Figures figures = store_->figures();
    page.dead_letters = figures.dead;
    page.state_bytes = figures.bytes;
    page.max_state_bytes = static_cast<uint64_t>(config_.limits.max_state_bytes);
    page.state_broken = store_->health() ? 0 : 1;
    page.write_errors = figures.write_errors;
    page.state_disk_bytes = figures.disk_bytes;
    page.unwritten_bytes = store_->pending_bytes();
    page.lost_results = figures.lost_results;
    page.damaged_rows = figures.damaged_rows;
    page.commits = figures.commits;
    page.commit_ns = figures.commit_ns;
    const Webhooks::Outcomes& outcomes = webhooks_->outcomes();
    const uint64_t counts[] = {outcomes.delivered, outcomes.retried, outcomes.given_up,
                               outcomes.refused_target, outcomes.disabled};
    std::copy(std::begin(counts), std::end(counts), page.webhooks);
    page.webhooks_pending = webhooks_->pending();
  }
  put_workers(page, supervisor_);
  put_devices(page, device_watch_);
  metrics_file_.write(bytes_of(page));
}

std::string Server::status_json() {
  return report_status({.config = config_,
                        .dispatcher = dispatcher_,
                        .supervisor = supervisor_,
                        .device_watch = device_watch_,
                        .protocol_errors = wires_.protocol_errors(),
                        .connections = newcomers_.size() + callers_.size(),
                        .uptime_s = (wires_.now_ns() - start_ns_) / kNsPerSec});
}

void Server::on_caller_closed(CallerSession& session) {
  if (session.greeted()) {
    callers_.erase(session.self);
    return;
  }
  strangers_ -= session.peer().roles == 0 ? 1 : 0;
  newcomers_.erase(session.self);
}

void Server::on_greeted(CallerSession& session) {
  callers_.splice(callers_.end(), newcomers_, session.self);
}

void Server::on_denied(std::string_view reason) {
  refusals_.log(Level::kWarn, "a connection was closed: " + std::string(reason), wires_.now_ns());
}

void Server::on_refused(std::string_view who, std::string_view reason) {
  refusals_.log(Level::kWarn,
                "a connection was closed: " + std::string(who) + " sent " + std::string(reason),
                wires_.now_ns());
}

}  // namespace penstock::queue
