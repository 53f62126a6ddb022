#include "worker/engines/process/engine.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "shared/base/call_failed.h"
#include "shared/http/trace_context.h"
#include "worker/engines/process/failures.h"

namespace penstock::process {
namespace {

constexpr uint64_t kProd = UINT64_MAX;      // in place of a Readiness
constexpr int64_t kPatienceNs = kNsPerSec;  // at the end, for programs that end by themselves

std::string variable(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return std::string(name) + "=" + (value == nullptr ? otherwise : value);
}

// Nothing is inherited but what is named here, and by `env:`.
std::vector<std::string> environment_of(const Options& options, const std::string& home) {
  std::vector<std::string> all = {
      variable("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
      variable("LANG", "C.UTF-8"), "HOME=" + home};
  for (const char* const name : {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"}) {
    if (std::getenv(name) != nullptr) {
      all.push_back(variable(name, ""));
    }
  }
  for (const std::string& each : options.environment) {
    const std::string name = each.substr(0, each.find('=') + 1);
    std::erase_if(all, [&](const std::string& ours) { return ours.starts_with(name); });
    all.push_back(each);
  }
  return all;
}

// As execvp(3) finds it, in the program's own PATH.
std::string find_in_path(const std::string& program, const std::vector<std::string>& environment) {
  constexpr std::string_view kPath = "PATH=";
  const auto path = std::find_if(environment.begin(), environment.end(),
                                 [&](const std::string& each) { return each.starts_with(kPath); });
  if (program.find('/') != program.npos || path == environment.end()) {
    return program;
  }
  for (size_t at = kPath.size(); at <= path->size();) {
    const size_t end = std::min(path->find(':', at), path->size());
    std::string file = path->substr(at, end - at);
    file.append("/").append(program);
    if (::access(file.c_str(), X_OK) == 0) {
      return file;
    }
    at = end + 1;
  }
  return program;  // and that is what cannot be started
}

Result<Launch> prepare(const Options& options) {
  auto account = find_account(options.user);
  if (!account) {
    return account.error();
  }
  Launch launch;
  launch.command = options.command;
  launch.environment = environment_of(options, account->home);
  launch.path = find_in_path(options.command.front(), launch.environment);
  if (!options.user.empty() && account->credentials.user != ::geteuid()) {
    launch.credentials = std::move(account->credentials);
  }
  return launch;
}

}  // namespace

Result<std::unique_ptr<Engine>> ProcessEngine::open(Options options, const std::string& worker,
                                                    uint32_t slots, Sink& sink, Log log) {
  ::signal(SIGPIPE, SIG_IGN);  // a program may close its input at any time
  auto launch = prepare(options);
  if (!launch) {
    return launch.error();
  }
  auto scratch = Scratch::open(options.folder, worker);
  if (!scratch) {
    return scratch.error();
  }
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  Fd prod(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  epoll_event readable{};
  readable.events = EPOLLIN;
  readable.data.u64 = kProd;
  if (!epoll.valid() || !prod.valid() ||
      ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, prod.get(), &readable) != 0) {
    return call_failed("the process engine", "epoll");
  }
  std::unique_ptr<ProcessEngine> engine(
      new ProcessEngine({std::move(options), std::move(*launch), sink, std::move(log)},
                        std::move(*scratch), std::move(epoll), std::move(prod)));
  for (size_t i = 0; i < slots; ++i) {
    auto folder = SlotFolder::create(engine->scratch_, i, engine->shop_.launch.credentials);
    if (!folder) {
      return folder.error();
    }
    engine->slots_.push_back(
        std::make_unique<Slot>(engine->shop_, std::move(*folder), engine->epoll_.get(), i));
  }
  return std::unique_ptr<Engine>(std::move(engine));
}

ProcessEngine::ProcessEngine(Workshop workshop, Scratch scratch, Fd epoll, Fd prod)
    : shop_(std::move(workshop)),
      scratch_(std::move(scratch)),
      epoll_(std::move(epoll)),
      prod_(std::move(prod)) {}

ProcessEngine::~ProcessEngine() {
  const auto is_shut = [](const auto& slot) { return slot->is_shut(); };
  int64_t now_ns = monotonic_ns();
  const int64_t end_ns = now_ns + std::min(shop_.options.grace_ns, kPatienceNs);
  for (const auto& slot : slots_) {
    slot->shut_down(now_ns);
  }
  while (!std::all_of(slots_.begin(), slots_.end(), is_shut) && now_ns < end_ns) {
    epoll_event event;
    ::epoll_wait(epoll_.get(), &event, 1, static_cast<int>((end_ns - now_ns) / kNsPerMs) + 1);
    now_ns = monotonic_ns();
    read_events(now_ns);
  }
}

std::variant<std::unique_ptr<Plan>, Failure> ProcessEngine::admit(const Request& request) {
  auto plan = std::make_unique<ProcessPlan>();
  plan->method = request.method;
  plan->path = request.path;
  plan->query = request.query;
  if (const auto trace = http::trace_headers_of(request.headers)) {
    plan->traceparent = http::render_traceparent(trace->context);
    plan->tracestate = trace->state;
  }
  if (!request.trace.empty()) {
    plan->traceparent = request.trace;
  }
  plan->content_type = request.content_type;
  plan->model = request.model;
  plan->storage = request.storage;
  plan->copied = request.storage == nullptr ? request.body : std::string_view();
  plan->body = request.storage == nullptr ? plan->copied : request.body;
  plan->override = request.override;
  plan->deadline_ns = request.deadline_ns;
  return plan;
}

void ProcessEngine::start(JobNumber job, std::unique_ptr<Plan> plan) {
  fresh_.emplace_back(job, static_cast<ProcessPlan*>(plan.release()));
}

int64_t ProcessEngine::step(int64_t now_ns) {
  read_events(now_ns);
  for (const auto& slot : slots_) {
    slot->advance(now_ns, losses_);
  }
  announce(now_ns);
  for (const Slot::Loss& loss : losses_) {
    loss.failure ? shop_.sink.failed(loss.job, *loss.failure) : shop_.sink.left(loss.job);
  }
  losses_.clear();
  start_fresh(now_ns);
  int64_t due_ns = kIdle;
  for (const auto& slot : slots_) {
    due_ns = std::min(due_ns, slot->due_ns());
  }
  return due_ns;
}

void ProcessEngine::read_events(int64_t now_ns) {
  epoll_event events[64];
  const int count = ::epoll_wait(epoll_.get(), events, std::size(events), 0);
  for (int i = 0; i < count; ++i) {
    if (events[i].data.u64 == kProd) {
      eventfd_t ignored;
      ::eventfd_read(prod_.get(), &ignored);
      continue;
    }
    const Readiness ready = Watch::read(events[i].data.u64);
    slots_[ready.slot]->on_events(ready.stream, now_ns);
  }
}

// What a slot had to say before is read by now, so none of it can be taken for an answer to these.
void ProcessEngine::start_fresh(int64_t now_ns) {
  for (auto& [job, plan] : fresh_) {
    const auto free = std::find_if(slots_.begin(), slots_.end(),
                                   [](const auto& slot) { return slot->is_free(); });
    if (free == slots_.end()) {
      shop_.sink.failed(job, not_now());
    } else {
      (*free)->start(job, std::move(plan), now_ns);
    }
  }
  fresh_.clear();
}

void ProcessEngine::announce(int64_t now_ns) {
  uint32_t open = 0;
  std::string why;
  int64_t retry_ns = INT64_MAX;
  for (const auto& slot : slots_) {
    open += slot->is_open() ? 1 : 0;
    if (!slot->is_open()) {
      why = slot->trouble();
      retry_ns = std::min(retry_ns, slot->restart_ns());
    }
  }
  if (open == said_slots_ && why == said_why_ && retry_ns == said_retry_ns_) {
    return;
  }
  said_slots_ = open;
  said_why_ = why;
  said_retry_ns_ = retry_ns;
  shop_.sink.open(
      {.slots = open,
       .out = open == 0,
       .retry_ms = retry_ns == INT64_MAX ? 0 : std::max<int64_t>(retry_ns - now_ns, 0) / kNsPerMs,
       .why = why});
}

Slot* ProcessEngine::slot_of(JobNumber job) {
  const auto found =
      std::find_if(slots_.begin(), slots_.end(), [&](const auto& slot) { return slot->has(job); });
  return found == slots_.end() ? nullptr : found->get();
}

bool ProcessEngine::cancel(JobNumber job) {
  std::erase_if(fresh_, [&](const auto& entry) { return entry.first == job; });
  Slot* const slot = slot_of(job);
  if (slot == nullptr || slot->cancel()) {
    return true;
  }
  ::eventfd_write(prod_.get(), 1);
  return false;
}

void ProcessEngine::pause(JobNumber job) {
  if (Slot* const slot = slot_of(job)) {
    slot->pause(true);
  }
}

void ProcessEngine::resume(JobNumber job) {
  if (Slot* const slot = slot_of(job)) {
    slot->pause(false);
  }
}

// Tokens only: a job takes no steps together with others.
Figures ProcessEngine::figures() const {
  Figures figures;
  for (const auto& slot : slots_) {
    figures.prompt_tokens += slot->used().prompt_tokens;
    figures.generation_tokens += slot->used().completion_tokens;
  }
  return figures;
}

}  // namespace penstock::process
