#include "worker/queue/shared_jobs/shared_jobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "worker/queue/config/redis_keys.h"
#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

redis::Settings settings_of(const RedisConfig& config, std::string password) {
  redis::Settings settings;
  settings.database = config.database;
  settings.user = config.user;
  settings.password = std::move(password);
  settings.prefix = config.prefix;
  settings.layout = order_script::kLayout;
  settings.scripts = order_script::all();
  settings.host = SharedOrder::new_host();
  settings.counts_hosts = false;
  settings.follows = redis::Settings::Follows::kMoved;
  return settings;
}

redis::Whereabouts whereabouts_of(const RedisConfig& config) {
  redis::Whereabouts where;
  for (const RedisConfig::At& at : config.at) {
    where.addresses.push_back({at.path, at.host, at.port});
  }
  where.master = config.sentinel;
  return where;
}

}  // namespace

Scheduler::QueueSettings settings_of(const QueueConfig& queue) {
  return {.name = queue.name,
          .max_length = queue.max_length,
          .max_per_owner = queue.max_per_owner,
          .attempts = queue.attempts,
          .deadline_ns = queue.deadline_ns,
          .backoff_ns = queue.backoff_ns,
          .aging_ns = queue.aging_ns};
}

int64_t kept_ms(const QueueConfig& queue) {
  return std::max(std::max(queue.keep_results_ns, queue.keep_bodies_ns) / kNsPerMs,
                  SharedQueue::kLeastKeptMs);
}

Result<std::unique_ptr<SharedJobs>> SharedJobs::open(const Config& config, EventLoop& events,
                                                     std::function<void()> on_event,
                                                     SharedQueue::User& user, Store* store) {
  if (config.redis.events == 0 &&
      std::none_of(config.queues.begin(), config.queues.end(),
                   [](const QueueConfig& queue) { return queue.shared; })) {
    return std::unique_ptr<SharedJobs>();
  }
  auto password = read_password(config.redis);
  if (!password) {
    return Error{"redis.password_file: " + password.error().message};
  }
  std::unique_ptr<LargeResults> results;
  if (config.results.is_there()) {
    auto opened =
        LargeResults::open(config.results, config.state, config.socket_group, events, on_event);
    if (!opened) {
      return Error{"results: " + opened.error().message};
    }
    results = *std::move(opened);
  }
  std::unique_ptr<SharedJobs> jobs(
      new SharedJobs(config, *std::move(password), events, std::move(on_event), user, store));
  jobs->results_ = std::move(results);
  return jobs;
}

SharedJobs::SharedJobs(const Config& config, std::string password, EventLoop& events,
                       std::function<void()> on_event, SharedQueue::User& user, Store* store)
    : loops_(events, std::move(on_event)),
      servers_(
          settings_of(config.redis, password), whereabouts_of(config.redis),
          [this] { return loops_.make(); }, *this),
      replicas_(config.redis.replicas),
      store_(store) {
  Promising promising;
  if (config.redis.replicas > 0) {
    redis::Settings settings = settings_of(config.redis, std::move(password));
    settings.follows = redis::Settings::Follows::kNone;
    promise_servers_ = std::make_unique<redis::Servers>(
        std::move(settings), whereabouts_of(config.redis), [this] { return loops_.make(); },
        promises_);
    promising = {promise_servers_.get(), config.redis.replicas, store,
                 config.limits.keep_dead_ns / kNsPerMs};
  }
  for (const QueueConfig& queue : config.queues) {
    if (queue.shared) {
      queues_.push_back(std::make_unique<SharedQueue>(servers_, loops_.make(), user,
                                                      config.redis.host, queue::settings_of(queue),
                                                      kept_ms(queue), promising));
    }
  }
  if (replicas_ == 0 && config.redis.at.size() + (config.redis.sentinel.empty() ? 0 : 1) > 1) {
    log(Level::kWarn,
        "a 202 of shared queues says that one Redis has the job: a failover may lose it; "
        "promise: replicas:1 has it on another as well");
  }
  servers_.start();
  if (promise_servers_ != nullptr) {
    promise_servers_->start();
  }
}

Status SharedJobs::recover(int64_t now_ms, const Held& held) {
  if (store_ == nullptr) {
    return Ok{};
  }
  constexpr std::string_view kSecretOf = PromiseJournal::kSecretOf;
  size_t others = 0;
  size_t recalled = 0;
  size_t lapsed = 0;
  Status read = store_->away([&](std::string_view id, std::string_view job) {
    if (id.starts_with(ReceiptJournal::kReceiptOf)) {
      const bool holds = recall(job, held);
      if (!holds) {
        store_->forget_away(std::string(id));
      }
      ++(holds ? recalled : lapsed);
      return;
    }
    Newcomer newcomer;
    std::string name;
    const bool secret = id.starts_with(kSecretOf);
    if (secret) {
      name = id.substr(kSecretOf.size());
    } else if (!decode(job, newcomer, name)) {
      name.clear();
    }
    SharedQueue* const queue = find(name);
    PromiseJournal* const journal = queue == nullptr ? nullptr : queue->journal();
    if (journal == nullptr) {
      others += secret ? 0 : 1;
    } else if (secret) {
      journal->restore_secret(std::string(job));
    } else {
      journal->restore(newcomer, now_ms);
    }
  });
  if (others > 0) {
    log(Level::kWarn,
        std::to_string(others) +
            " promised jobs are kept here, of queues that are not shared any more, or "
            "are not promised by replicas: nobody looks after them");
  }
  if (recalled > 0) {
    log(Level::kInfo, "what was charged for " + std::to_string(recalled) +
                          " promised jobs of shared queues is to be settled once they end");
  }
  if (lapsed > 0) {
    log(Level::kWarn, "what was charged for " + std::to_string(lapsed) +
                          " promised jobs is not settled: their queues are not shared any more, or "
                          "what was kept of them cannot be read");
  }
  return read;
}

bool SharedJobs::recall(std::string_view kept, const Held& held) {
  JobRecord record;
  std::string_view receipt;
  SharedQueue* const queue = decode(kept, record, receipt) ? find(record.queue) : nullptr;
  if (queue == nullptr) {
    return false;
  }
  receipts_.restore(record.id);
  held(*queue, record, receipt);
  return true;
}

SharedQueue* SharedJobs::find(std::string_view name) const {
  const auto found = std::find_if(queues_.begin(), queues_.end(),
                                  [&](const auto& queue) { return queue->name() == name; });
  return found == queues_.end() ? nullptr : found->get();
}

void SharedJobs::apply(const Config& config) {
  for (const QueueConfig& queue : config.queues) {
    if (SharedQueue* const shared = find(queue.name); shared != nullptr) {
      shared->set(queue::settings_of(queue), kept_ms(queue), config.limits.keep_dead_ns / kNsPerMs);
    }
  }
}

// A queue that is away does not keep what another knows from whoever asks.
void SharedJobs::look_in(size_t number, SharedQueue* away, const std::string& id, size_t most,
                         const Found& then) {
  SharedOrder::Answer<SharedOrder::Known> none;
  if (number == queues_.size()) {
    none.trouble = away == nullptr ? SharedOrder::Trouble::kNone : SharedOrder::Trouble::kUnknown;
    return then(away, none);
  }
  SharedQueue& queue = *queues_[number];
  const auto told = [this, number, away, id, most, then,
                     &queue](SharedOrder::Answer<SharedOrder::Known>& answer) {
    if (answer && answer.value.state != SharedOrder::Known::State::kUnknown) {
      return then(&queue, answer);
    }
    look_in(number + 1, answer ? away : &queue, id, most, then);
  };
  if (!queue.look(id, most, told)) {
    look_in(number + 1, &queue, id, most, then);
  }
}

void SharedJobs::advance() {
  const int64_t now_ns = monotonic_ns();
  loops_.advance_to(now_ns);
  see_reached();
  for (const auto& queue : queues_) {
    queue->advance_to(now_ns);
  }
  if (now_ns >= durability_ns_) {
    look_at_durability();
  }
  if (now_ns >= memory_ns_) {
    look_at_memory();
  }
  if (results_ != nullptr) {
    results_->advance_to(now_ns, [this] {
      for (const auto& queue : queues_) {
        results_->clean(queue->order());
      }
    });
  }
}

void SharedJobs::flush() {
  for (const auto& queue : queues_) {
    queue->flush();
  }
}

int64_t SharedJobs::next_event(int64_t now_ns) const {
  int64_t next_ns = loops_.next_event();
  for (const auto& queue : queues_) {
    next_ns = std::min(next_ns, queue->next_event());
  }
  const int64_t in_ns = std::max<int64_t>(next_ns - monotonic_ns(), 0);
  return next_ns == INT64_MAX ? INT64_MAX : now_ns + in_ns;
}

void SharedJobs::leave() {
  for (const auto& queue : queues_) {
    queue->leave();
  }
}

bool SharedJobs::has_left() const {
  return std::all_of(queues_.begin(), queues_.end(),
                     [](const auto& queue) { return queue->has_left(); });
}

void SharedJobs::over() {
  for (const auto& queue : queues_) {
    queue->over();
  }
  servers_.leave();
  if (promise_servers_ != nullptr) {
    promise_servers_->leave();
  }
}

void SharedJobs::on_ready(std::string_view who) noexcept {
  if (!std::exchange(is_ready_, true)) {
    log(Level::kInfo, "shared queues are in " + std::string(who));
  }
  is_told_ = false;
  where_ = who;
  trouble_.clear();
  const std::set<std::string> away = told_;
  see_reached();
  for (const auto& queue : queues_) {
    if (!away.contains(queue->name())) {
      queue->doubt();
    }
    layouts_.look(queue->name());
  }
  durability_.forget();
  look_at_durability();
  look_at_memory();
}

void SharedJobs::look_at_durability() {
  durability_ns_ = monotonic_ns() + kDurabilityNs;
  for (const auto& queue : queues_) {
    if (promise_servers_ == nullptr) {
      durability_.look(queue->key());
    }
  }
}

void SharedJobs::look_at_memory() {
  memory_ns_ = monotonic_ns() + kMemoryNs;
  for (const auto& queue : queues_) {
    memory_.look(queue->key());
  }
}

void SharedJobs::Promises::on_lost(std::string_view why) noexcept {
  if (!std::exchange(told, true)) {
    log(Level::kError, "shared queues promise no jobs: " + std::string(why));
  }
}

void SharedJobs::on_lost(std::string_view why) noexcept {
  is_ready_ = false;
  trouble_ = why;
  const std::vector<std::string> queues = newly_unreached();
  if (std::exchange(is_told_, true) && queues.empty()) {
    return;
  }
  const bool all = queues.size() == queues_.size();
  const std::string what =
      all              ? "shared queues take no jobs"
      : queues.empty() ? "shared queues"
                       : fmt::format("queue{} {} take{} no jobs", queues.size() > 1 ? "s" : "",
                                     fmt::join(queues, ", "), queues.size() > 1 ? "" : "s");
  log(Level::kError, what + ": " + std::string(why));
}

// Of which that has not been said.
std::vector<std::string> SharedJobs::newly_unreached() {
  see_reached();
  std::vector<std::string> names;
  for (const auto& queue : queues_) {
    if (!queue->order().ready() && told_.insert(queue->name()).second) {
      names.push_back(queue->name());
    }
  }
  return names;
}

// Each of a cluster's masters comes back for itself, and may have lost something.
void SharedJobs::see_reached() {
  std::vector<std::string> names;
  for (const auto& queue : queues_) {
    if (!told_.empty() && queue->order().ready() && told_.erase(queue->name()) > 0) {
      names.push_back(queue->name());
      queue->doubt();
    }
  }
  if (!names.empty()) {
    log(Level::kInfo, fmt::format("queue{} {} {} reached again", names.size() > 1 ? "s" : "",
                                  fmt::join(names, ", "), names.size() > 1 ? "are" : "is"));
  }
}

}  // namespace penstock::queue
