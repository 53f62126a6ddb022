// How a Server comes up: what it holds is opened, and what was promised is read back.
#include <fmt/format.h>
#include <unistd.h>
#include <filesystem>

#include "worker/queue/jobs/notices_of.h"
#include "worker/queue/link/signals.h"
#include "worker/queue/publish/cluster_report.h"
#include "worker/queue/server.h"

namespace penstock::queue {
namespace {

wire::Limits wire_limits(const Config& config) {
  wire::Limits limits;
  limits.submit_bytes = static_cast<uint32_t>(config.limits.max_body_bytes + (64 << 10));
  return limits;
}

// "HOST:SOCKET", for whoever has spans of several.
std::string instance_name(const Config& config) {
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  return std::string(host) + ":" + config.socket;
}

// What of a record must be there before anything else is opened.
struct HandedOver {
  CarriedBegin begin;
  CarriedListener listener;
  Fd state_lock;
};

Result<HandedOver> read_first_of(const MappedRecord& record, const Config& config) {
  HandedOver handed_over;
  if (const char* const error = check_record(record.bytes(), handed_over.begin); error != nullptr) {
    return Error{std::string("what the penstockd before this has handed over: ") + error};
  }
  for (RecordReader reader(record.bytes()); reader.next();) {
    CarriedLock lock;
    if (reader.type() == CarriedListener::kType) {
      reader.read(handed_over.listener);
    } else if (reader.type() == CarriedLock::kType && reader.read(lock) && lock.name.empty()) {
      auto fd = take_descriptor(lock.fd);
      if (!fd) {
        return fd.error();
      }
      handed_over.state_lock = *std::move(fd);
    }
  }
  if (handed_over.listener.path != config.socket) {
    return Error{"what was handed over listens on " + std::string(handed_over.listener.path) +
                 ", and `socket` is " + config.socket};
  }
  return handed_over;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::open(Config config, std::string config_path,
                                             Invocation invocation, const MappedRecord& record) {
  const Access access{config.socket_mode, config.socket_group};
  HandedOver handed_over;
  if (record.valid()) {
    auto read = read_first_of(record, config);
    if (!read) {
      return read.error();
    }
    handed_over = *std::move(read);
  }
  const CarriedBegin& begin = handed_over.begin;
  auto manager = record.valid()
                     ? ServiceManager::at(begin.notify, begin.watchdog_every_ns, begin.watchdog_us)
                     : ServiceManager::from_environment();
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
  auto listener = record.valid() ? Listener::take_over(handed_over.listener)
                                 : Listener::claim(config.socket, manager->take_socket());
  if (!listener) {
    return listener.error();
  }
  auto publisher = Publisher::create(config.socket, access);
  if (!publisher) {
    return publisher.error();
  }
  std::unique_ptr<Store> store;
  if (!config.state.empty()) {
    auto opened = Store::open({.folder = config.state,
                               .group = config.socket_group,
                               .max_bytes = config.limits.max_state_bytes,
                               .max_share_bytes = config.limits.max_share_bytes(),
                               .reserve_bytes = static_cast<uint64_t>(config.limits.reserve_bytes),
                               .lock = &handed_over.state_lock});
    if (!opened) {
      return opened.error();
    }
    store = *std::move(opened);
  }
  std::unique_ptr<Server> server(
      new Server(std::move(config), std::move(config_path), *std::move(manager), *std::move(loop),
                 *std::move(listener), *std::move(publisher), *std::move(signals), std::move(store),
                 *std::move(roles)));
  server->invocation_ = std::move(invocation);
  std::optional<JobsHandOver> jobs;
  if (record.valid()) {
    server->begin_anew(begin);
    jobs.emplace(server->dispatcher_);
  }
  Status recovered = server->recover(jobs ? &*jobs : nullptr, record);
  if (recovered && jobs) {
    recovered = server->take_over(record, *jobs);
  }
  if (!recovered) {
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
      spans_(loop_, instance_name(config_)),
      callers_(loop_, connections_, std::move(listener), std::move(roles), handlers_,
               [this] { return status_json(); }),
      start_ns_(clock_.now_ns()) {
  callers_.set_limits(config_.limits);
  operator_api_.tell("/status", [this] { return status_json(); });
  operator_api_.tell("/cluster", [this] { return report_cluster(dispatcher_); });
  std::error_code unknown;
  operator_api_.state = std::filesystem::absolute(config_.state, unknown).string();
  operator_api_.changes = [this] { return changes_json(); };
  operator_api_.upgrade = [this](Waiter& waiter, bool dry) { order_upgrade(&waiter, dry); };
  operator_api_.tell("/history",
                     [this] { return history_.json(dispatcher_, connections_.now_ns()); });
}

// What was promised in an earlier life stands in its queue before anybody is listened to.
Status Server::recover(JobsHandOver* jobs_taken, const MappedRecord& handed_over) {
  connections_.read_clock();
  auto shared = SharedJobs::open(
      config_, loop_, [this] { connections_.read_clock(); }, dispatcher_, store_.get());
  if (!shared) {
    return shared.error();
  }
  shared_ = *std::move(shared);
  if (shared_ != nullptr) {
    dispatcher_.use(*shared_);
  }
  dispatcher_.apply(config_);
  checks_.apply(config_.challenges);
  dispatcher_.on_span = [this](Span span) { spans_.add(std::move(span)); };
  spans_.apply(config_.traces);
  if (shared_ != nullptr) {
    auto telling = SharedTelling::open(dispatcher_, loop_, *shared_, config_);
    if (!telling) {
      return telling.error();
    }
    telling_ = *std::move(telling);
    intake_.check_callback = [this](std::string_view url) {
      return telling_->webhooks().check(url);
    };
  }
  if (jobs_taken != nullptr) {
    read_jobs(handed_over, *jobs_taken);
  }
  if (store_ == nullptr) {
    if (jobs_taken != nullptr) {
      jobs_taken->restore();
    }
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
  apply_ledger(config_.ledger);
  std::vector<UsageRow> left;
  auto usage = UsageFile::open(config_.state + "/usage", store_->usage_mark(), left);
  if (!usage) {
    log(Level::kError, usage.error().message + "; what is waited for is counted in memory alone");
  }
  dispatcher_.usage().use(*store_, usage ? *std::move(usage) : UsageFile(), std::move(left));
  intake_.set_secret(store_->secret());
  webhooks_ = std::make_unique<Webhooks>(Webhooks::Calls{
      .message = [this](const JobId& id, auto told) { ask_message(id, std::move(told)); },
      .tried = [this](const JobId& id, uint32_t tries, int64_t due_ms,
                      Webhooks::Fate) { store_->delivered(id, tries, due_ms); },
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
  open_notices();
  doubt_clock();
  if (shared_ != nullptr) {
    Status recovered =
        shared_->recover(dispatcher_.wall_ms(), [this](auto& queue, const auto& job, auto receipt) {
          dispatcher_.recall(queue, job, receipt);
        });
    if (!recovered) {
      return recovered;
    }
  }
  if (jobs_taken != nullptr) {
    jobs_taken->keep_files(*store_);
  }
  size_t jobs = 0;
  Status recovered = store_->recover(
      [&](JobRecord&& record) {
        if (jobs_taken != nullptr && jobs_taken->takes(record)) {
          return;
        }
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
  if (jobs_taken != nullptr) {
    jobs_taken->restore();
  }
  recovered = store_->unsettled(EdgeLines::kMaxPending,
                                [this](JobRecord&& record) { dispatcher_.restore_over(record); });
  return recovered ? recover_orders() : recovered;
}

void Server::apply_ledger(const LedgerConfig& ledger) {
  store_->set_usage_bounds({.keep_hours = ledger.keep_ns / kNsPerMs / kHourMs,
                            .rows = static_cast<int64_t>(ledger.max_rows)});
}

void Server::open_notices() {
  notices_ = std::make_unique<Notices>(
      loop_, Notices::Calls{
                 .due = [this](const NoticeQuery& query,
                               auto told) { store_->due_notices(query, std::move(told)); },
                 .tried =
                     [this](const DueNotice& notice, uint32_t tries, int64_t due_ms, auto on_done) {
                       store_->noticed(notice, tries, due_ms, std::move(on_done));
                     },
                 .keep = [this](auto names) { store_->keep_hooks(std::move(names)); }});
  notices_->advance_to(connections_.now_ns(), dispatcher_.wall_ms());
  dispatcher_.notices = [this](const JobView& job, bool dead) {
    return notices_of(*notices_, job, dead);
  };
  dispatcher_.on_notices_due = [this] { notices_->added(); };
  dispatcher_.on_quota = [this](const wire::QuotaNotice& quota) { tell_quota(quota); };
  notices_->apply(config_.notify);  // before jobs are recovered, as some may end at once
}

// It is on disk as the notices of jobs are, under an id of its own. More than a receiver could mind
// is in Nginx's log alone.
void Server::tell_quota(const wire::QuotaNotice& quota) {
  JobEnd end;
  end.notices = notices_of(*notices_, quota, dispatcher_.wall_ms());
  if (end.notices.empty()) {
    return;
  }
  if (!quotas_told_.admits(connections_.now_ns())) {
    return log(Level::kWarn, "a quota that was passed is not told to the hooks: too many at once");
  }
  end.id = dispatcher_.new_id();
  end.finished_ms = dispatcher_.wall_ms();
  store_->notify(end);
  notices_->added();
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
    Scheduler::Queue* const queue = dispatcher_.scheduler().find_queue(name);
    if (queue != nullptr && dispatcher_.shared(*queue) == nullptr) {  // else Redis knows
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

}  // namespace penstock::queue
