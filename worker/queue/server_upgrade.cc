// How a Server gives its place to the next penstockd, and takes it from the last.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "shared/base/units.h"
#include "shared/base/version.h"
#include "worker/queue/server.h"
#include "worker/queue/text/json.h"
#include "worker/queue/text/reply.h"

namespace penstock::queue {

// ---- it is ordered ----

void Server::order_upgrade(Waiter* waiter, bool dry) {
  if (upgrade_.phase != Upgrade::Phase::kNone) {
    if (waiter == nullptr) {
      return log(Level::kWarn, "an upgrade is under way already");
    }
    return answer_upgrade(*waiter, 409, "An upgrade is under way already, or asked about.");
  }
  upgrade_.waiter = waiter;
  upgrade_.dry = dry;
  upgrade_.phase = Upgrade::Phase::kAsking;
  if (phase_ != Phase::kServing) {
    return refuse_upgrade(409, "penstockd is being stopped");
  }
  if (operator_api_.backs_up()) {
    return refuse_upgrade(409, "a backup is being made or taken: wait for it");
  }
  auto successor = Successor::ask(loop_, invocation_.program, config_path_, turned_ns_,
                                  [this](auto says) { successor_said(std::move(says)); });
  if (!successor) {
    return refuse_upgrade(503, successor.error().message);
  }
  upgrade_.successor = *std::move(successor);
}

void Server::successor_said(Result<SuccessorSays> says) {
  connections_.read_clock();
  const auto over = std::move(upgrade_.successor);
  if (!says) {
    return refuse_upgrade(409, says.error().message);
  }
  upgrade_.says = *std::move(says);
  if (const std::string why = why_not(upgrade_.says); !why.empty()) {
    return refuse_upgrade(409, why);
  }
  if (upgrade_.dry) {
    const std::string json = upgrade_json(upgrade_.says);
    Waiter* const waiter = std::exchange(upgrade_.waiter, nullptr);
    upgrade_.phase = Upgrade::Phase::kNone;
    if (waiter != nullptr && dispatcher_.subscribers().answered(*waiter)) {
      append_reply(waiter->caller->out(), waiter->id,
                   {.status = 200, .content_type = kJson, .headers = "Cache-Control: no-store\n"},
                   json);
      dispatcher_.subscribers().leave(*waiter);
    }
    return;
  }
  log(Level::kInfo, fmt::format("upgrade from {} to {}: begins", version(), upgrade_.says.version));
  for (const std::string& each : not_kept()) {
    log(Level::kInfo, "upgrade: not kept: " + each);
  }
  upgrade_.phase = Upgrade::Phase::kSettling;
  upgrade_.ends_ns = connections_.now_ns() + Upgrade::kSettleNs;
  callers_.hold();
}

// Empty: it can take over what is here.
std::string Server::why_not(const SuccessorSays& says) const {
  if (kNewestFormat < says.oldest_format || kNewestFormat > says.newest_format) {
    return fmt::format(
        "{} {} takes over what is handed over in the formats {} to {}, and this one hands it over "
        "in format {}: restart penstockd",
        invocation_.program, says.version, says.oldest_format, says.newest_format, kNewestFormat);
  }
  const SuccessorSays own = says_of(config_);
  if (store_ != nullptr && says.schema < own.schema) {
    return fmt::format(
        "{} {} knows the state of schema {}, and it is of schema {}: take a newer one",
        invocation_.program, says.version, says.schema, own.schema);
  }
  for (const auto& [key, here, there] :
       {std::tuple{"socket", &own.socket, &says.socket},
        {"state", &own.state, &says.state},
        {"redis, or which queues are shared", &own.shared, &says.shared}}) {
    if (*here != *there) {
      return fmt::format("{} has another {}, which changes with a restart only", config_path_, key);
    }
  }
  if (shared_ != nullptr && !shared_->queues().empty()) {
    return "queues are shared with other hosts";
  }
  return {};
}

void Server::answer_upgrade(Waiter& waiter, uint64_t status, const std::string& why) {
  if (!dispatcher_.subscribers().answered(waiter)) {
    return;
  }
  wire::append(waiter.caller->out(), waiter.id,
               wire::Failed{.status = status,
                            .code = status == 503 ? "busy" : "invalid_request",
                            .message = why,
                            .retry_after_s = status == 503 ? 5U : 0U});
  dispatcher_.subscribers().leave(waiter);
}

// All goes on as before.
void Server::refuse_upgrade(uint64_t status, const std::string& why) {
  log(upgrade_.dry ? Level::kInfo : Level::kError,
      (upgrade_.dry ? "an upgrade would be refused: " : "no upgrade: ") + why);
  if (upgrade_.phase == Upgrade::Phase::kSettling) {
    callers_.go_on();
    checks_.apply(config_.challenges);
  }
  Waiter* const waiter = std::exchange(upgrade_.waiter, nullptr);
  upgrade_.phase = Upgrade::Phase::kNone;
  upgrade_.ends_ns = INT64_MAX;
  if (waiter != nullptr) {
    answer_upgrade(*waiter, status, "There is no upgrade: " + why + ".");
  }
}

std::vector<std::string> Server::not_kept() const {
  std::vector<std::string> all = {
      "counters in metrics begin anew, and so do the last hour's history and the list of orders",
      "streams of all of an owner's jobs (/jobs/events) end; their readers come back by themselves",
      "webhooks and hooks on their way may be told twice",
      "what Nginx corrects in that moment of a request that is over is not in the ledger",
      "what a provider of challenges was asked and has not answered counts as not known"};
  if (std::any_of(config_.workers.begin(), config_.workers.end(),
                  [](const WorkerConfig& worker) { return worker.adaptive_slots; })) {
    all.emplace_back("what `slots: auto` has found is looked for again");
  }
  if (config_.traces.on()) {
    all.emplace_back("spans that were not sent yet are lost");
  }
  return all;
}

std::string Server::upgrade_json(const SuccessorSays& says) const {
  JsonList lost;
  for (const std::string& each : not_kept()) {
    lost.add(json_string(each));
  }
  return JsonObject()
      .text("object", "upgrade")
      .text("program", invocation_.program)
      .text("from", version())
      .text("to", says.version)
      .number("connections", static_cast<int64_t>(callers_.connections()))
      .number("processes", static_cast<int64_t>(supervisor_.processes()))
      .number("jobs", static_cast<int64_t>(dispatcher_.jobs()))
      .raw("not_kept", lost.done())
      .done();
}

// ---- it is done ----

void Server::advance_upgrade(int64_t now_ns) {
  if (upgrade_.successor != nullptr) {
    upgrade_.successor->advance_to(now_ns);
  }
  if (upgrade_.phase != Upgrade::Phase::kSettling) {
    return;
  }
  if (phase_ != Phase::kServing) {
    return refuse_upgrade(409, "penstockd is being stopped");
  }
  if (!settled()) {
    return now_ns < upgrade_.ends_ns
               ? void()
               : refuse_upgrade(503,
                                "what is on its way to the disk or to Redis, or a worker's end, "
                                "took longer than " +
                                    format_duration(Upgrade::kSettleNs));
  }
  const Status failed = hand_over();  // returns where it could not be done
  refuse_upgrade(503, failed.error().message);
}

bool Server::settled() {
  return JobsHandOver(dispatcher_).settle() && supervisor_.settled() &&
         (telling_ == nullptr || telling_->settled());
}

Status Server::hand_over() {
  checks_.apply({});
  JobsHandOver(dispatcher_).end_the_rest(upgrade_.waiter);
  connections_.flush();
  connections_.reap();
  if (!settled()) {
    return Error{
        "a worker has just ended, or something is on its way to the disk or to Redis: order it "
        "again"};
  }
  auto record = RecordWriter::create();
  if (!record) {
    return record.error();
  }
  write_record(*record);
  auto memory = record->finish();
  if (!memory) {
    return memory.error();
  }
  Status kept = keep_over_exec(true);
  if (kept) {
    kept = penstock::queue::keep_over_exec(memory->get(), true);
  }
  if (kept) {
    std::vector<char*> words;
    for (std::string& word : invocation_.words) {
      words.push_back(word.data());
    }
    words.front() = invocation_.program.data();
    words.push_back(nullptr);
    ::setenv(kHandOverVariable, std::to_string(memory->get()).c_str(), 1);
    manager_.reloading(monotonic_ns());
    log_turns_.end_turn(turned_ns_);  // else its lines are gone
    ::execv(invocation_.program.c_str(), words.data());
    kept = Error{invocation_.program + " cannot be started: " + std::strerror(errno)};
    ::unsetenv(kHandOverVariable);
    manager_.ready();
  }
  if (Status undone = keep_over_exec(false); !undone) {
    log(Level::kError, undone.error().message);
  }
  return kept;
}

void Server::write_record(RecordWriter& record) {
  const JobsHandOver jobs(dispatcher_);
  const limit::Secret& secret = intake_.secret();
  CarriedBegin begin{.format = kNewestFormat,
                     .version = version(),
                     .now_ns = clock_.now_ns(),
                     .missed_ns = clock_.missed_ns(),
                     .notify = manager_.address(),
                     .watchdog_every_ns = manager_.watched_every_ns(),
                     .upgrades = upgrade_.count + 1,
                     .secret = {reinterpret_cast<const char*>(&secret), sizeof secret}};
  jobs.note_numbers(begin);
  const std::string told = upgrade_json(upgrade_.says);
  begin.kept = told;
  begin.watchdog_us = manager_.watchdog_us();
  record.add(begin);
  const Waiter* const waiter = upgrade_.waiter;
  callers_.hand_over(record, waiter == nullptr ? Callers::UpgradeOrder{}
                                               : Callers::UpgradeOrder{waiter->caller, waiter->id});
  if (store_ != nullptr) {
    record.add(CarriedLock{.fd = static_cast<uint64_t>(store_->lock_fd())});
  }
  jobs.write(record, [this](const Caller& caller) { return callers_.place_of(caller); });
  supervisor_.hand_over(record);
}

Status Server::keep_over_exec(bool keep) {
  Status kept = callers_.keep_over_exec(keep);
  if (kept) {
    kept = supervisor_.keep_over_exec(keep);
  }
  if (kept && store_ != nullptr) {
    kept = penstock::queue::keep_over_exec(store_->lock_fd(), keep);
  }
  return kept;
}

// ---- in the next ----

void Server::begin_anew(const CarriedBegin& begin) {
  clock_.go_on(begin.missed_ns);
  clock_.came_due(begin.now_ns);
  connections_.read_clock();
  start_ns_ = connections_.now_ns();
  upgrade_.count = begin.upgrades;
  if (limit::Secret secret; begin.secret.size() == sizeof secret) {
    std::memcpy(&secret, begin.secret.data(), sizeof secret);
    intake_.set_secret(secret);
  }
}

void Server::read_jobs(const MappedRecord& record, JobsHandOver& jobs) {
  for (RecordReader reader(record.bytes()); reader.next();) {
    reader.on<CarriedJob>([&](const CarriedJob& job) { jobs.read(job); });
  }
}

Status Server::take_over(const MappedRecord& record, JobsHandOver& jobs) {
  CarriedBegin begin;
  for (RecordReader reader(record.bytes()); reader.next();) {
    Status taken = Ok{};
    const bool known = reader.on<CarriedBegin>([&](const CarriedBegin& its) {
      begin = its;
      jobs.take_numbers(begin);
    }) || reader.on<CarriedCaller>([&](const CarriedCaller& caller) {
      taken = callers_.take_over(caller);
    }) || jobs.read_order(reader);
    if (!known) {
      taken = supervisor_.take_over(reader, jobs);
    }
    if (!taken) {
      return taken;
    }
  }
  JobId id;
  for (RecordReader reader(record.bytes()); reader.next();) {
    reader.on<CarriedJob>([&](const CarriedJob& job) { id = id_of(Ulid{job.high, job.low}); });
    reader.on<CarriedWaiter>([&](const CarriedWaiter& waiter) {
      jobs.read(waiter, id, callers_.caller_at(waiter.caller));
    });
  }
  jobs.finish();
  log(Level::kInfo,
      fmt::format("upgraded from {} to {}: {} connections, {} processes and {} jobs go on",
                  begin.version, version(), callers_.connections(), supervisor_.processes(),
                  dispatcher_.jobs()));
  if (const Callers::UpgradeOrder& order = callers_.upgrade_order(); order.caller != nullptr) {
    append_reply(order.caller->out(), order.id,
                 {.status = 200, .content_type = kJson, .headers = "Cache-Control: no-store\n"},
                 begin.kept);
  }
  end_strangers();
  return Ok{};
}

// Children that an earlier life had for a moment: a look at devices, a hook's program. What they
// were for is done again.
void Server::end_strangers() {
  std::ifstream file("/proc/self/task/" + std::to_string(::getpid()) + "/children");
  for (pid_t pid = 0; file >> pid;) {
    const auto& workers = supervisor_.workers();
    if (std::none_of(workers.begin(), workers.end(),
                     [&](const auto& worker) { return worker->child.pid() == pid; })) {
      strangers_.emplace_back(pid);
      strangers_.back().kill();
    }
  }
  reap_strangers();
}

void Server::reap_strangers() {
  std::erase_if(strangers_, [](Child& child) { return child.reap(); });
}

}  // namespace penstock::queue
