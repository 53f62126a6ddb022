#include "worker/queue/challenges/provider_checks.h"

#include <algorithm>
#include <utility>

#include "worker/queue/challenges/provider_answer.h"

namespace penstock::queue {
namespace {

constexpr size_t kMostToken = 8192;
constexpr size_t kMostTokenOfTurnstile = 2048;

// As providers make them; whatever else came from no widget.
bool is_token(std::string_view provider, std::string_view token) {
  const auto fits = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           std::string_view("-_.~+/=:").find(c) != std::string_view::npos;
  };
  return !token.empty() &&
         token.size() <= (provider == "turnstile" ? kMostTokenOfTurnstile : kMostToken) &&
         std::all_of(token.begin(), token.end(), fits);
}

void add_field(std::string& form, std::string_view name, std::string_view value) {
  constexpr char kHex[] = "0123456789ABCDEF";
  form.append(form.empty() ? "" : "&").append(name).append("=");
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      form.push_back(c);
    } else {
      form.append({'%', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
}

std::string form_of(const ProviderConfig& provider, const wire::Verify& verify) {
  std::string form;
  add_field(form, "secret", provider.secret);
  add_field(form, "response", verify.token);
  if (provider.name == "hcaptcha" && !verify.sitekey.empty()) {
    add_field(form, "sitekey", verify.sitekey);
  }
  if (provider.sends_remote_ip && !verify.remote_ip.empty()) {
    add_field(form, "remoteip", verify.remote_ip);
  }
  return form;
}

void answer(Connection* to, uint64_t id, wire::Verdict verdict) {
  if (to != nullptr && !to->closed()) {
    wire::append(to->out(), id, wire::Verified{.verdict = static_cast<uint64_t>(verdict)});
  }
}

}  // namespace

class ProviderChecks::Provider final : public EventLoop::Handler {
 public:
  Provider(ProviderChecks& checks, const ProviderConfig& of)
      : config(of), checks_(checks), sender_(patience_of(of)) {
    if (Status added = checks_.loop_.add(sender_.event_fd(), EPOLLIN, this); !added) {
      log(Level::kError, config.name + ": " + added.error().message);
    }
  }
  ~Provider() override { checks_.loop_.remove(sender_.event_fd(), this); }

  void give_up() {
    for (const auto& [sequence, check] : under_way_) {
      answer(check.to, check.id, wire::Verdict::kUnknown);
    }
  }

  void ask(Connection& to, uint64_t id, const wire::Verify& verify) {
    if (!is_token(config.name, verify.token)) {
      return answer(&to, id, wire::Verdict::kBad);
    }
    const auto of_caller =
        std::count_if(under_way_.begin(), under_way_.end(),
                      [&](const auto& each) { return each.second.caller == verify.caller; });
    if (static_cast<size_t>(of_caller) >= kMostPerCaller) {
      return answer(&to, id, wire::Verdict::kBad);  // its own doing
    }
    if (under_way_.size() >= kMost) {
      tell("too much is asked of it at once");
      return answer(&to, id, wire::Verdict::kBusy);
    }
    if (checks_.now_ns_() < rests_until_ns_) {
      tell("it is left alone");
      return answer(&to, id, wire::Verdict::kUnknown);
    }
    const JobId job = checks_.ids_.make(checks_.wall_ns_() / kNsPerMs);
    under_way_[sequence_of(job)] = {&to, id, std::string(verify.caller)};
    sender_.send({.id = job,
                  .url = config.url,
                  .headers = {"content-type: application/x-www-form-urlencoded",
                              "accept: application/json", "user-agent: Penstock", "expect:"},
                  .body = form_of(config, verify),
                  .targets = anywhere(),
                  .wants_body = true});
  }

  void left(const Connection& to) {
    for (auto& [sequence, check] : under_way_) {
      if (check.to == &to) {
        check.to = nullptr;
      }
    }
  }

  const ProviderConfig config;

 private:
  static WebhookSender::Patience patience_of(const ProviderConfig& config) {
    const auto timeout_ms = static_cast<long>(config.timeout_ns / kNsPerMs);
    return {.connect_ms = timeout_ms, .total_ms = timeout_ms, .per_host = static_cast<long>(kMost)};
  }
  // The operator chose the URL.
  static std::shared_ptr<const WebhookTargets> anywhere() {
    static const auto all =
        std::make_shared<WebhookTargets>(*WebhookTargets::create({"0.0.0.0/0", "::/0"}));
    return all;
  }

  void on_events(uint32_t) override {
    for (const WebhookResponse& response : sender_.take()) {
      const auto found = under_way_.find(sequence_of(response.id));
      const ProviderVerdict judged = judge(response);
      note(judged);
      answer(found->second.to, found->second.id, judged.verdict);
      under_way_.erase(found);
    }
  }

  ProviderVerdict judge(const WebhookResponse& response) const {
    if (response.status == 0 || response.cut) {
      return {wire::Verdict::kUnknown, response.cut ? "its answer is too long" : response.error};
    }
    return judge_answer(config, response.status, response.body, checks_.wall_ns_() / kNsPerSec);
  }

  void note(const ProviderVerdict& judged) {
    if (judged.verdict == wire::Verdict::kUnknown) {
      failures_ += 1;
      tell(judged.reason);
    } else {
      failures_ = 0;
    }
    if (judged.verdict == wire::Verdict::kBad) {
      checks_.troubles_.line(judged.maybe_ours ? Level::kWarn : Level::kInfo,
                             config.name + " refuses a token: " + judged.reason, checks_.now_ns_());
    }
    if (failures_ >= kMostFailures) {
      rests_until_ns_ = checks_.now_ns_() + kRestNs;
      failures_ = kMostFailures - 1;  // one more is enough
    }
  }

  void tell(const std::string& trouble) {
    checks_.troubles_.line(Level::kWarn, config.name + " cannot be asked: " + trouble,
                           checks_.now_ns_());
  }

  ProviderChecks& checks_;
  WebhookSender sender_;
  std::map<uint64_t, Check> under_way_;
  unsigned failures_ = 0;  // in a row
  int64_t rests_until_ns_ = 0;
};

ProviderChecks::ProviderChecks(EventLoop& loop, std::function<int64_t()> now_ns,
                               std::function<int64_t()> wall_ns)
    : loop_(loop), now_ns_(std::move(now_ns)), wall_ns_(std::move(wall_ns)) {}

ProviderChecks::~ProviderChecks() = default;

void ProviderChecks::apply(const std::vector<ProviderConfig>& providers) {
  decltype(providers_) fresh;
  for (const ProviderConfig& config : providers) {
    const auto known = providers_.find(config.name);
    fresh[config.name] = known != providers_.end() && known->second->config == config
                             ? std::move(known->second)
                             : std::make_unique<Provider>(*this, config);
  }
  providers_.swap(fresh);
  for (const auto& [name, gone] : fresh) {
    if (gone != nullptr) {
      gone->give_up();
    }
  }
}

void ProviderChecks::ask(Connection& to, uint64_t id, const wire::Verify& verify) {
  const auto found = providers_.find(verify.provider);
  if (found != providers_.end()) {
    return found->second->ask(to, id, verify);
  }
  troubles_.line(Level::kWarn,
                 "a token of " + std::string(verify.provider.substr(0, 32)) +
                     " cannot be asked about: `challenges` has no such provider",
                 now_ns_());
  answer(&to, id, wire::Verdict::kUnknown);
}

void ProviderChecks::left(const Connection& to) {
  for (const auto& [name, provider] : providers_) {
    provider->left(to);
  }
}

}  // namespace penstock::queue
