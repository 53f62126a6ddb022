#include "worker/engines/http/engine.h"

#include <algorithm>
#include <optional>

#include "shared/base/clock.h"

namespace penstock::http_engine {
namespace {

constexpr uint64_t kShares = 1000;                   // of a cache whose blocks nobody counts
constexpr std::string_view kLlamaCpp = "llama.cpp";  // as it calls itself
constexpr int64_t kUsualLingerNs = 2 * kNsPerSec;    // where a server notices late

ServerOptions server_options(const Options& options) {
  return {.socket = options.url.socket,
          .ca = options.ca,
          .connect_ns = std::min(options.timeouts.connect_ns, options.timeouts.idle_ns),
          .connections = options.slots + 4};
}

Rest::Settings rest_settings(const Options& options) {
  return {.slots = options.slots,
          .first_ns = options.backoff_first_ns,
          .most_ns = options.backoff_most_ns,
          .max_hold_ns = options.max_hold_ns};
}

}  // namespace

struct HttpEngine::Job final : Transfers::Receiver {
  HttpEngine& engine;
  const JobNumber number;
  const std::unique_ptr<Call> call;
  const int64_t started_ns;
  double time_at_start = 0;
  std::optional<Answer> answer;
  bool resent = false;
  bool paused = false;
  int64_t scheduled_ns = 0;  // its place in timers_; 0: none

  Job(HttpEngine& engine_, JobNumber number_, std::unique_ptr<Call> call_, int64_t now_ns)
      : engine(engine_), number(number_), call(std::move(call_)), started_ns(now_ns) {}

  bool on_header(std::string_view line) override { return answer->on_header(line, engine.now_ns_); }
  bool on_body(std::string_view bytes) override {
    const bool more = answer->on_body(bytes, engine.now_ns_);
    if (answer->due_ns() < scheduled_ns) {
      engine.schedule(*this);
    }
    return more;
  }
};

HttpEngine::HttpEngine(Options options, Key key, Sink& sink, Log log)
    : options_(std::move(options)),
      key_(std::move(key)),
      sink_(sink),
      log_(std::move(log)),
      shared_{options_, sink_, log_, {}, {}},
      rest_(rest_settings(options_)),
      told_{.slots = options_.slots},
      transfers_(server_options(options_)),
      probe_(options_, transfers_),
      now_ns_(monotonic_ns()) {}

HttpEngine::~HttpEngine() = default;

std::variant<std::unique_ptr<Plan>, Failure> HttpEngine::admit(const Request& request) {
  auto edited = edit_request(request, options_);
  if (auto* const failure = std::get_if<Failure>(&edited)) {
    return std::move(*failure);
  }
  return std::unique_ptr<Plan>(std::get<std::unique_ptr<Call>>(std::move(edited)));
}

void HttpEngine::start(JobNumber number, std::unique_ptr<Plan> plan) {
  now_ns_ = monotonic_ns();
  std::unique_ptr<Call> call(static_cast<Call*>(plan.release()));
  auto& job = *jobs_.emplace(number, std::make_unique<Job>(*this, number, std::move(call), now_ns_))
                   .first->second;
  job.time_at_start = time_.change(running(), now_ns_);
  begin(job, false);
  schedule(job);
}

void HttpEngine::begin(Job& job, bool fresh) {
  job.answer.emplace(job.number, *job.call, shared_, now_ns_);
  Transfers::Request request{.method = job.call->method,
                             .url = job.call->url,
                             .headers = options_.headers,
                             .body = job.call->body,
                             .fresh = fresh};
  request.headers.push_back("Content-Type: " + job.call->content_type);
  request.headers.insert(request.headers.end(), job.call->headers.begin(), job.call->headers.end());
  if (const std::string& key = key_.header(now_ns_, log_); !key.empty()) {
    request.headers.push_back(key);
    shared_.key = key;
  }
  transfers_.start(job.number, request, job);
}

int64_t HttpEngine::step(int64_t now_ns) {
  now_ns_ = now_ns;
  for (const Transfers::Ended& ended : transfers_.step(now_ns)) {
    end(ended);
  }
  expire_timers();
  look();
  release_lingering();
  announce();
  int64_t due_ns = std::min({transfers_.due_ns(), rest_.next_event(now_ns), probe_.next_event()});
  if (!timers_.empty()) {
    due_ns = std::min(due_ns, timers_.begin()->first);
  }
  return std::min(due_ns, lingering_.due_ns());
}

// What the server says of itself, where it is asked.
void HttpEngine::look() {
  const bool was_well = probe_.health().well();
  if (!probe_.step(now_ns_, key_.header(now_ns_, log_))) {
    if (!was_well) {
      rest_.hold(probe_.health().why());
    }
    return;
  }
  if (const std::string others = probe_.take_others(); !others.empty()) {
    log_(LogLevel::kWarn, "the server does not have this model, but " + others +
                              "; upstream_model is what it calls it");
  }
  server_ = server_.empty() ? probe_.server() : server_;
  look_at_slots();
  const Health& health = probe_.health();
  if (!health.well()) {
    rest_.hold(health.why());
  } else {
    rest_.release();
    rest_.crowd(health.load().waiting.value_or(0), running());
  }
}

// How many are busy there, beside our own jobs.
void HttpEngine::look_at_slots() {
  if (const auto busy = probe_.take_busy(); busy && probe_.asked_ns() >= cancelled_ns_) {
    const int64_t arrived_ns = probe_.asked_ns() - Lingering::kArrivedNs;
    const auto ours = std::count_if(jobs_.begin(), jobs_.end(), [&](const auto& each) {
      return each.second->started_ns <= arrived_ns;
    });
    lingering_.told(*busy, static_cast<uint64_t>(ours), now_ns_);
  }
  if (!lingering_.empty()) {
    probe_.look_at_slots(now_ns_ + Lingering::kAskEveryNs, server_ == kLlamaCpp);
  }
}

void HttpEngine::release_lingering() {
  for (const JobNumber job : lingering_.take_free(now_ns_)) {
    sink_.left(job);
  }
}

Figures HttpEngine::figures() const {
  const ServerLoad& load = probe_.health().load();
  Figures figures{.server_running = load.running.value_or(0),
                  .server_waiting = load.waiting.value_or(0),
                  .context_tokens = probe_.health().context_tokens()};
  if (load.kv_use) {
    figures.kv_blocks = load.kv_blocks > 0 ? load.kv_blocks : kShares;
    figures.kv_blocks_used =
        static_cast<uint64_t>(*load.kv_use * static_cast<double>(figures.kv_blocks));
  }
  return figures;
}

void HttpEngine::end(const Transfers::Ended& ended) {
  if (ended.id == Probe::kId) {
    return probe_.ended(ended.end, now_ns_);
  }
  const auto found = jobs_.find(ended.id);
  if (found != jobs_.end() && !resend(*found->second, ended.end)) {
    end(*found->second, ended.end);
  }
}

// What only generates may go once more, at once, when a kept connection was closed under our hands.
bool HttpEngine::resend(Job& job, const TransferEnd& transfer) {
  if (transfer.whole || transfer.heard || !transfer.reused || job.resent || !job.call->may_resend) {
    return false;
  }
  log_(LogLevel::kDebug, job.call->shown + ": sent again, as its kept connection was closed");
  job.resent = true;
  begin(job, true);
  return true;
}

void HttpEngine::end(Job& job, const TransferEnd& transfer) {
  const JobNumber number = job.number;
  Ending ending = job.answer->end(transfer, now_ns_);
  if (job.answer->head().status() > 0 && server_.empty()) {
    server_ = job.answer->head().server();
  }
  if (ending.verdict) {
    const Verdict& verdict = *ending.verdict;
    const int64_t rest_ns = rest_.rest({ending.why, verdict.out, verdict.quota, verdict.rest_ns},
                                       job.started_ns, now_ns_);
    log_(verdict.level, job.call->shown + ": " + ending.why + "; the url rests for " +
                            std::to_string(rest_ns / kNsPerMs) + " ms");
  } else if (transfer.whole) {
    rest_.answered(job.started_ns);
  }
  timers_.erase({job.scheduled_ns, number});
  const double time_at_start = job.time_at_start;
  jobs_.erase(number);
  const double share_ns = time_.change(running(), now_ns_) - time_at_start;
  announce();  // before the job is back
  if (auto* const usage = std::get_if<Usage>(&ending.outcome)) {
    usage->device_ns = static_cast<uint64_t>(share_ns);
    sink_.done(number, *usage);
  } else {
    sink_.failed(number, std::get<Failure>(ending.outcome));
  }
}

void HttpEngine::expire_timers() {
  while (!timers_.empty() && timers_.begin()->first <= now_ns_) {
    const JobNumber number = timers_.begin()->second;
    timers_.erase(timers_.begin());
    const auto found = jobs_.find(number);
    if (found == jobs_.end() || found->second->paused) {
      continue;  // it has ended; or its timers begin again with resume()
    }
    Job& job = *found->second;
    if (job.answer->due_ns() > now_ns_) {
      schedule(job);
      continue;
    }
    job.answer->expire(now_ns_);
    transfers_.stop(number);
    end(job, {.error = "given up"});
  }
}

// A time that has come later meanwhile is found out when the earlier one comes.
void HttpEngine::schedule(Job& job) {
  timers_.erase({job.scheduled_ns, job.number});
  job.scheduled_ns = job.answer->due_ns();
  timers_.emplace(job.scheduled_ns, job.number);
}

// Says what is open, if it has changed.
void HttpEngine::announce() {
  Rest::State state = rest_.state(running(), now_ns_);
  if (state == told_) {
    return;
  }
  told_ = std::move(state);
  sink_.open(
      {.slots = told_.slots,
       .out = told_.out,
       .retry_ms = told_.until_ns == 0 ? 0 : (told_.until_ns - now_ns_ + kNsPerMs - 1) / kNsPerMs,
       .why = told_.why});
}

bool HttpEngine::cancel(JobNumber number) {
  const auto found = jobs_.find(number);
  if (found == jobs_.end()) {
    return true;
  }
  now_ns_ = monotonic_ns();
  const int64_t linger = linger_ns(*found->second);
  transfers_.stop(number);
  if (linger > 0) {
    log_(LogLevel::kDebug, found->second->call->shown + ": cancelled; its slot may linger for " +
                               std::to_string(linger / kNsPerMs) + " ms");
    lingering_.add(number, now_ns_, linger, options_.linger_ns >= 0 ? linger : Lingering::kMostNs);
    cancelled_ns_ = now_ns_;
    probe_.look_at_slots(now_ns_, server_ == kLlamaCpp);
  }
  timers_.erase({found->second->scheduled_ns, number});
  jobs_.erase(found);
  time_.change(running(), now_ns_);
  return linger <= 0;
}

// Who has begun to answer notices at its next word that nobody listens. Before, llama.cpp reads the
// prompt to its end, and KServe's infer makes the whole answer.
int64_t HttpEngine::linger_ns(const Job& job) const {
  if (job.answer->committed()) {
    return 0;
  }
  if (options_.linger_ns >= 0) {
    return options_.linger_ns;
  }
  const bool late = server_ == kLlamaCpp || options_.protocol == Protocol::kKserve;
  return late ? kUsualLingerNs : 0;
}

void HttpEngine::pause(JobNumber number) {
  if (const auto found = jobs_.find(number); found != jobs_.end() && !found->second->paused) {
    found->second->paused = true;
    transfers_.pause(number, true);
  }
}

void HttpEngine::resume(JobNumber number) {
  if (const auto found = jobs_.find(number); found != jobs_.end() && found->second->paused) {
    Job& job = *found->second;
    now_ns_ = monotonic_ns();
    job.paused = false;
    job.answer->rewind(now_ns_);
    schedule(job);
    transfers_.pause(number, false);
  }
}

Result<std::unique_ptr<Engine>> open(Options options, Sink& sink, Log log) {
  auto key = Key::load(options.key_file, log);
  if (!key) {
    return key.error();
  }
  return std::unique_ptr<Engine>(
      std::make_unique<HttpEngine>(std::move(options), *std::move(key), sink, std::move(log)));
}

}  // namespace penstock::http_engine
