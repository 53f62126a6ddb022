#include "worker/engines/simulate/simulate_engine.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <thread>

#include "shared/base/clock.h"

namespace penstock::simulate {
namespace {

constexpr double kLongestStepNs = 1e18;  // which a job that many share may pass

// Progress is said each twentieth of a job, but not more often than this.
constexpr int64_t kMinProgressNs = 250 * kNsPerMs;

// Of a body, into the run log.
constexpr size_t kLoggedBytes = 200;

constexpr std::array<std::string_view, 16> kWords = {
    "The",      " water", " waits", " behind", " the", " gate", " until", " a",
    " turbine", " is",    " free,", " then",   " it",  " runs", " and",   " turns."};

std::string_view word(uint32_t index) {
  return index > 0 && index % kWords.size() == 0 ? " The" : kWords[index % kWords.size()];
}

bool looks_like_object(std::string_view body) {
  const size_t at = body.find_first_not_of(" \t\r\n");
  return at != body.npos && body[at] == '{';
}

// A prompt has about a token for each four bytes of its text.
uint64_t prompt_tokens_of(const openai::CompletionRequest& request) {
  size_t bytes = request.prompt.size();
  for (const openai::Message& message : request.messages) {
    bytes += message.content.size();
  }
  return std::max<uint64_t>(1, bytes / 4);
}

}  // namespace

SimulateEngine::SimulateEngine(const SimulateOptions& options, std::string model, Sink& sink,
                               openai::Rules rules)
    : options_(options),
      model_(std::move(model)),
      sink_(sink),
      times_(options.distribution, options.sigma, options.seed),
      parser_(rules),
      run_log_(options.run_log.empty() ? -1 : open_run_log(options.run_log)),
      occupancy_(options.occupancy.empty() ? nullptr
                                           : Occupancy::open(options.occupancy, this_device())) {}

std::variant<std::unique_ptr<Plan>, Failure> SimulateEngine::admit(const Request& request) {
  auto plan = std::make_unique<SimulatePlan>();
  plan->memory_bytes = options_.job_memory_bytes;
  plan->crashes =
      !options_.crash_on.empty() && request.body.find(options_.crash_on) != request.body.npos;
  if (run_log_.valid()) {
    plan->logged = request.body.substr(0, kLoggedBytes);
  }
  if (openai::is_completions_path(request.path) && looks_like_object(request.body)) {
    auto parsed = parser_.parse(request);
    if (auto* failure = std::get_if<Failure>(&parsed)) {
      return std::move(*failure);
    }
    plan->completion = std::get<openai::CompletionRequest>(std::move(parsed));
  }
  return plan;
}

void SimulateEngine::start(JobNumber job, std::unique_ptr<Plan> plan) {
  fresh_.emplace_back(job, static_cast<SimulatePlan*>(plan.release()));
}

double SimulateEngine::speed() const {
  return options_.parallel == 0 || jobs_.size() <= options_.parallel
             ? 1
             : static_cast<double>(options_.parallel) / static_cast<double>(jobs_.size());
}

int64_t SimulateEngine::step(int64_t wall_ns) {
  if (!options_.faults.empty()) {
    obey_faults();
  }
  device_now_ns_ += static_cast<int64_t>(static_cast<double>(wall_ns - stepped_ns_) * speed());
  stepped_ns_ = wall_ns;
  const int64_t now_ns = device_now_ns_;
  while (!by_due_.empty() && by_due_.begin()->first <= now_ns) {
    const JobNumber number = by_due_.begin()->second;
    by_due_.erase(by_due_.begin());
    const auto found = jobs_.find(number);
    if (advance(number, found->second, now_ns)) {
      by_due_.emplace(found->second.due_ns, number);
    } else {
      leave(found->second);
      jobs_.erase(found);
    }
  }
  for (auto& [number, plan] : fresh_) {
    Job job = begin(number, std::move(plan), now_ns);
    if (advance(number, job, now_ns)) {
      by_due_.emplace(job.due_ns, number);
      jobs_.emplace(number, std::move(job));
    } else {
      leave(job);
    }
  }
  fresh_.clear();
  if (by_due_.empty()) {
    return kIdle;
  }
  const double left_ns = std::ceil(static_cast<double>(by_due_.begin()->first - now_ns) / speed());
  return wall_ns + static_cast<int64_t>(std::min(left_ns, kLongestStepNs));
}

bool SimulateEngine::cancel(JobNumber job) {
  std::erase_if(fresh_, [&](const auto& entry) { return entry.first == job; });
  const auto found = jobs_.find(job);
  if (found != jobs_.end()) {
    by_due_.erase({found->second.due_ns, job});
    leave(found->second);
    jobs_.erase(found);
  }
  return true;
}

void SimulateEngine::pause(JobNumber job) {
  if (const auto found = jobs_.find(job); found != jobs_.end()) {
    by_due_.erase({found->second.due_ns, job});
  }
}

void SimulateEngine::resume(JobNumber job) {
  if (const auto found = jobs_.find(job); found != jobs_.end()) {
    by_due_.emplace(found->second.due_ns, job);
  }
}

void SimulateEngine::leave(const Job& job) {
  if (occupancy_ != nullptr) {
    occupancy_->add(-1, -job.plan->memory_bytes);
  }
}

void SimulateEngine::obey_faults() {
  std::string fault = fault_of(options_);
  while (fault == "hang") {
    ::pause();
  }
  while (fault == "slow") {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    fault = fault_of(options_);
  }
  if (fault == "broken") {
    throw std::runtime_error("simulated device " + this_device() + " broke the engine");
  }
  if (fault == "lost") {
    throw DeviceLost("simulated device " + this_device() + " is lost");
  }
}

SimulateEngine::Job SimulateEngine::begin(JobNumber number, std::unique_ptr<SimulatePlan> plan,
                                          int64_t now_ns) {
  Job job;
  job.plan = std::move(plan);
  int64_t mean_ns = options_.service_time_ns;
  if (job.plan->completion.has_value()) {
    const uint32_t asked = job.plan->completion->max_tokens.value_or(options_.output_tokens);
    job.tokens = job.plan->completion->ignore_eos ? asked : std::min(asked, options_.output_tokens);
    if (options_.tokens_per_second > 0) {
      mean_ns = static_cast<int64_t>(job.tokens / options_.tokens_per_second * 1e9);
    }
  }
  job.started_ns = now_ns;
  if (occupancy_ != nullptr) {
    occupancy_->add(1, job.plan->memory_bytes);
  }
  if (run_log_.valid()) {
    job.run = log_run(number, job.plan->logged);
  }
  job.service_ns = times_.next_ns(mean_ns);
  job.fails = times_.chance(options_.failure_rate);
  job.progress_ns = now_ns + std::max(job.service_ns / 20, kMinProgressNs);
  if (job.plan->completion.has_value() && !job.fails) {
    job.answer.emplace(number, *job.plan->completion, model_, realtime_ns() / kNsPerSec, sink_);
    done_.prompt_tokens += prompt_tokens_of(*job.plan->completion);
  }
  return job;
}

// False when the job has ended.
bool SimulateEngine::advance(JobNumber number, Job& job, int64_t now_ns) {
  const int64_t passed_ns = now_ns - job.started_ns;
  const bool over = passed_ns >= job.service_ns;
  bool stopped = false;
  if (job.answer.has_value() && (over || job.plan->completion->stream)) {
    const double share = over ? 1 : static_cast<double>(passed_ns) / job.service_ns;
    stopped = !write_tokens(job, static_cast<uint32_t>(share * job.tokens));
  }
  if (over && job.plan->crashes) {
    ::raise(SIGKILL);
  }
  if (over || stopped) {
    finish(number, job, stopped, std::min(passed_ns, job.service_ns));
    return false;
  }
  say_progress(number, job, now_ns);
  job.due_ns = std::max(next_due(job), now_ns + 1);
  return true;
}

void SimulateEngine::say_progress(JobNumber number, Job& job, int64_t now_ns) {
  if (now_ns >= job.progress_ns) {
    const double fraction = static_cast<double>(now_ns - job.started_ns) / job.service_ns;
    sink_.progress(number, fraction, static_cast<uint32_t>(fraction * job.tokens), job.tokens);
    job.progress_ns = now_ns + std::max(job.service_ns / 20, kMinProgressNs);
  }
}

// False when the text so far holds a stop string.
bool SimulateEngine::write_tokens(Job& job, uint32_t up_to) {
  while (job.tokens_sent < up_to) {
    ++done_.generation_tokens;
    if (!job.answer->text(word(job.tokens_sent++))) {
      return false;
    }
  }
  return true;
}

void SimulateEngine::finish(JobNumber number, Job& job, bool stopped, int64_t worked_ns) {
  Usage usage{.prompt_tokens = 0,
              .completion_tokens = job.tokens_sent,
              .device_ns = static_cast<uint64_t>(worked_ns)};
  if (job.fails) {
    sink_.failed(number, {502, "engine_failed", "The simulated device failed.", "", true});
  } else if (job.answer.has_value()) {
    usage.prompt_tokens = prompt_tokens_of(*job.plan->completion);
    const bool cut = !stopped && job.tokens < options_.output_tokens;
    job.answer->finish(cut ? openai::Finish::kLength : openai::Finish::kStop, usage);
  } else {
    const std::string run = job.run.empty() ? "" : ",\"run\":\"" + job.run + "\"";
    const std::string body = "{\"ok\":true,\"engine\":\"simulate\"" + run + "}\n";
    sink_.head(number, 200, "application/json", static_cast<int64_t>(body.size()));
    sink_.chunk(number, body);
    sink_.done(number, usage);
  }
}

// One write, so that lines of several workers do not mix.
std::string SimulateEngine::log_run(JobNumber number, std::string_view body) const {
  const std::string run = std::to_string(::getpid()) + "." + std::to_string(number) + "." +
                          std::to_string(monotonic_ns());
  std::string line = run + " " + std::string(body);
  std::replace_if(
      line.begin(), line.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  line += '\n';
  const ssize_t put = ::write(run_log_.get(), line.data(), line.size());
  return put == static_cast<ssize_t>(line.size()) ? run : "not logged";
}

int64_t SimulateEngine::next_due(const Job& job) const {
  int64_t due = std::min(job.started_ns + job.service_ns, job.progress_ns);
  if (job.answer.has_value() && job.plan->completion->stream) {
    const double share = static_cast<double>(job.tokens_sent + 1) / job.tokens;
    const auto token_ns = static_cast<int64_t>(share * static_cast<double>(job.service_ns));
    due =
        std::min(due, job.started_ns + token_ns + 1);  // + 1: rounding must not bring it too early
  }
  return due;
}

}  // namespace penstock::simulate
