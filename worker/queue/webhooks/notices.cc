#include "worker/queue/webhooks/notices.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "worker/queue/webhooks/webhooks.h"

namespace penstock::queue {
namespace {

constexpr int64_t kMsPerSec = 1000;
constexpr int64_t kLookMs = 60 * kMsPerSec;  // for what is due
constexpr size_t kMostVariableBytes = 4096;

static_assert(HookConfig::kMostPosts <= WebhookSender::kMostPerHost);

constexpr uint32_t bit(NoticeEvent event) { return 1U << static_cast<unsigned>(event); }

uint32_t events_of(JobStatus status, bool dead) {
  switch (status) {
    case JobStatus::kCompleted:
      return bit(NoticeEvent::kCompleted);
    case JobStatus::kFailed:
      return bit(NoticeEvent::kFailed) | (dead ? bit(NoticeEvent::kDead) : 0);
    case JobStatus::kCancelled:
      return bit(NoticeEvent::kCancelled);
    default:
      return bit(NoticeEvent::kExpired);
  }
}

// The fields as they are kept, and read back.
std::string join(const NoticeFields& fields) {
  std::string joined;
  for (const std::string& each : fields) {
    std::string text = each;
    std::replace(text.begin(), text.end(), '\0', ' ');
    joined.append(text).push_back('\0');
  }
  return joined;
}

NoticeFields part(std::string_view joined) {
  NoticeFields fields;
  while (!joined.empty() && fields.size() < std::size(kNoticeFields)) {
    const size_t end = std::min(joined.find('\0'), joined.size());
    fields.emplace_back(joined.substr(0, end));
    joined.remove_prefix(std::min(end + 1, joined.size()));
  }
  fields.resize(std::size(kNoticeFields));
  return fields;
}

// PENSTOCK_ERROR_CODE=engine_failed, and so on.
std::vector<std::string> variables_of(const NoticeFields& fields) {
  std::vector<std::string> variables;
  for (size_t i = 0; i < fields.size(); ++i) {
    std::string name = i == 1 ? "job_id" : std::string(kNoticeFields[i]);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
    variables.push_back("PENSTOCK_" + name + "=" + fields[i].substr(0, kMostVariableBytes));
  }
  return variables;
}

}  // namespace

class Notices::Hook final : public EventLoop::Handler {
 public:
  Hook(Notices& notices, const HookConfig& hook) : config(hook), notices_(notices) {
    if (!hook.command.empty()) {
      return;
    }
    const auto timeout_ms = static_cast<long>(hook.timeout_ns / kNsPerMs);
    sender_ = std::make_unique<WebhookSender>(
        WebhookSender::Patience{.connect_ms = timeout_ms, .total_ms = timeout_ms});
    if (Status added = notices_.loop_.add(sender_->event_fd(), EPOLLIN, this); !added) {
      log(Level::kError, "notify " + hook.name + ": " + added.error().message);
    }
  }
  ~Hook() override {
    if (sender_ != nullptr) {
      notices_.loop_.remove(sender_->event_fd(), this);
    }
  }
  void send(const DueNotice& notice) {
    sender_->send(
        {.id = notice.id,
         .url = config.url,
         .headers = config.headers,
         .body = config.body.empty() ? notice.json : config.body.fill(part(notice.fields)),
         .targets = notices_.anywhere_});
  }
  void on_events(uint32_t) override {
    for (const WebhookResponse& response : sender_->take()) {
      const bool taken = response.status >= 200 && response.status < 300;
      notices_.ended(*this, response.id,
                     taken                  ? ""
                     : response.status != 0 ? "it answers " + std::to_string(response.status)
                                            : response.error,
                     response.retry_after_s);
    }
  }
  bool has_place() const { return runs.size() < config.at_once; }

  const HookConfig config;
  std::map<JobId, Run> runs;
  bool asking = false;  // the store is asked what is due
  int64_t look_ns = 0;  // when it is to be asked next

 private:
  Notices& notices_;
  std::unique_ptr<WebhookSender> sender_;
};

Notices::Notices(EventLoop& loop, Calls calls, uint32_t seed)
    : loop_(loop),
      calls_(std::move(calls)),
      random_(seed),
      anywhere_(std::make_shared<WebhookTargets>(*WebhookTargets::create({"0.0.0.0/0", "::/0"}))) {
}  // the operator chose the URL

Notices::~Notices() = default;

void Notices::apply(const std::vector<HookConfig>& hooks) {
  std::map<std::string, std::shared_ptr<Hook>> fresh;
  std::vector<std::string> names;
  for (const HookConfig& config : hooks) {
    names.push_back(config.name);
    const auto known = hooks_.find(config.name);
    fresh[config.name] = known != hooks_.end() && known->second->config == config
                             ? known->second
                             : std::make_shared<Hook>(*this, config);
  }
  for (const auto& [name, hook] : hooks_) {
    const auto next = fresh.find(name);
    if (next == fresh.end() || next->second != hook) {
      leave(hook, next == fresh.end() ? nullptr : next->second.get());
    }
  }
  hooks_ = std::move(fresh);
  calls_.keep(std::move(names));
  look_soon();
}

// A POST is given up with its hook, a program when it is reaped. What is over stays so.
void Notices::leave(const std::shared_ptr<Hook>& hook, Hook* next) {
  for (auto& [id, run] : hook->runs) {
    if (run.program != nullptr) {
      run.program->kill();
    } else if (run.over && next != nullptr) {
      next->runs[id].over = true;
    }
  }
  std::erase_if(hook->runs, [](const auto& each) { return each.second.program == nullptr; });
  if (!hook->runs.empty()) {
    leaving_.push_back(hook);
  }
}

std::vector<Notice> Notices::of(JobStatus status, bool dead, const NoticeFields& fields,
                                const std::string& json) const {
  return for_hooks(events_of(status, dead), fields, json);
}

std::vector<Notice> Notices::of_quota(const NoticeFields& fields, const std::string& json) const {
  return for_hooks(bit(NoticeEvent::kQuota), fields, json);
}

std::vector<Notice> Notices::for_hooks(uint32_t events, const NoticeFields& fields,
                                       const std::string& json) const {
  std::vector<Notice> notices;
  for (const auto& [name, hook] : hooks_) {
    if ((hook->config.on & events) != 0) {
      notices.push_back({.hook = name, .fields = join(fields), .json = json});
    }
  }
  return notices;
}

void Notices::look_soon() {
  for (const auto& [name, hook] : hooks_) {
    hook->look_ns = now_ns_;
  }
}

int64_t Notices::next_event() const {
  int64_t next_ns = INT64_MAX;
  for (const auto& [name, hook] : hooks_) {
    if (!hook->asking && hook->has_place()) {
      next_ns = std::min(next_ns, hook->look_ns);
    }
    for (const auto& [id, run] : hook->runs) {
      next_ns = std::min(next_ns, run.ends_by_ns);
    }
  }
  return next_ns;
}

void Notices::advance_to(int64_t now_ns, int64_t now_ms) {
  now_ns_ = now_ns;
  began_ms_ = began_ms_ == 0 ? now_ms - now_ns / kNsPerMs : began_ms_;
  for (const auto& [name, hook] : hooks_) {
    for (auto& [id, run] : hook->runs) {
      if (run.ends_by_ns <= now_ns) {
        run.ends_by_ns = INT64_MAX;
        run.late = true;
        run.program->kill();  // and reaped
      }
    }
    if (!hook->asking && hook->has_place() && hook->look_ns <= now_ns) {
      ask(hook);
    }
  }
}

// What is due of one hook, some more than it has places for, as some of it is under way already.
void Notices::ask(const std::shared_ptr<Hook>& hook) {
  hook->asking = true;
  const NoticeQuery query{
      .hook = hook->config.name, .until_ms = steady_ms(), .limit = 2 * hook->config.at_once};
  calls_.due(query, [this, weak = std::weak_ptr(hook), limit = query.limit](NoticePage page) {
    const std::shared_ptr<Hook> asked = weak.lock();
    const auto now = asked == nullptr ? hooks_.end() : hooks_.find(asked->config.name);
    if (now == hooks_.end() || now->second != asked) {
      return;  // it is not in the configuration any more
    }
    asked->asking = false;
    // Whoever ends makes room, and is looked behind.
    const int64_t wait_ms = page.due.size() == limit ? kLookMs
                            : page.next_ms != 0      ? page.next_ms - steady_ms()
                                                     : kLookMs;
    asked->look_ns = now_ns_ + std::clamp<int64_t>(wait_ms, 0, kLookMs) * kNsPerMs;
    for (DueNotice& each : page.due) {
      if (asked->has_place() && !asked->runs.contains(each.id)) {
        start(*asked, std::move(each));
      }
    }
  });
}

void Notices::start(Hook& hook, DueNotice&& notice) {
  const JobId id = notice.id;
  Run& run = hook.runs[id];
  run.notice = std::move(notice);
  if (hook.config.command.empty()) {
    return hook.send(run.notice);
  }
  auto program = Program::start(loop_, hook.config.command, variables_of(part(run.notice.fields)),
                                run.notice.json);
  if (!program) {
    return ended(hook, id, program.error().message, 0);
  }
  run.program = *std::move(program);
  run.ends_by_ns = now_ns_ + hook.config.timeout_ns;
}

void Notices::reap() {
  for (const auto& [name, hook] : hooks_) {
    std::vector<std::pair<JobId, std::string>> over;
    for (auto& [id, run] : hook->runs) {
      if (run.program == nullptr || !run.program->reap()) {
        continue;
      }
      const std::string& said = run.program->said();
      over.emplace_back(id, run.program->succeeded()
                                ? ""
                                : (run.late ? "it took too long, and " : "it ") +
                                      run.program->end() +
                                      (said.empty() ? "" : "; it says: " + said));
    }
    for (const auto& [id, trouble] : over) {
      ended(*hook, id, trouble, 0);
    }
  }
  std::erase_if(leaving_, [](const std::shared_ptr<Hook>& hook) {
    std::erase_if(hook->runs, [](const auto& each) { return each.second.program->reap(); });
    return hook->runs.empty();
  });
}

// `trouble`: empty where it was taken.
void Notices::ended(Hook& hook, const JobId& id, const std::string& trouble,
                    int64_t retry_after_s) {
  const auto found = hook.runs.find(id);
  if (found == hook.runs.end() || found->second.over) {
    return;
  }
  const DueNotice notice = std::move(found->second.notice);
  found->second = {.over = true};
  const uint32_t tries = notice.tries + 1;
  const bool over = trouble.empty() || tries >= hook.config.tries;
  calls_.tried(notice, tries, over ? 0 : steady_ms() + wait_ms(tries, retry_after_s),
               [this, name = hook.config.name, id = notice.id] { written(name, id); });
  ++(trouble.empty() ? outcomes_.delivered : over ? outcomes_.given_up : outcomes_.retried);
  if (!trouble.empty()) {
    troubles_.line(Level::kWarn,
                   "notify " + hook.config.name + ", of " + std::string(notice.id.view()) + ": " +
                       trouble + (over ? "; it was given up" : ""),
                   now_ns_);
  }
}

// There is a place again.
void Notices::written(const std::string& name, const JobId& id) {
  const auto found = hooks_.find(name);
  if (found == hooks_.end()) {
    return;
  }
  Hook& hook = *found->second;
  if (const auto run = hook.runs.find(id); run != hook.runs.end() && run->second.over) {
    hook.runs.erase(run);
    hook.look_ns = now_ns_;
  }
}

// A tenth more or less, at random, and as long as the receiver asks for.
int64_t Notices::wait_ms(uint32_t tries, int64_t retry_after_s) {
  const int64_t seconds =
      Webhooks::kSchedule[std::min<size_t>(tries, Webhooks::kSchedule.size()) - 1];
  std::uniform_int_distribution<int64_t> spread(seconds * 900, seconds * 1100);
  const int64_t asked_s = std::min(retry_after_s, Webhooks::kLongestRetryAfterSeconds);
  return std::max(spread(random_), asked_s * kMsPerSec);
}

}  // namespace penstock::queue
