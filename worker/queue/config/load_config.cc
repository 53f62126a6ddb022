#include "worker/queue/config/load_config.h"

#include <fmt/format.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "shared/base/secret_file.h"
#include "shared/base/units.h"
#include "shared/limit/siphash.h"
#include "shared/wire/status_page.h"
#include "worker/queue/config/config_files.h"
#include "worker/queue/config/config_section.h"
#include "worker/queue/config/names.h"
#include "worker/queue/config/notify_keys.h"
#include "worker/queue/config/provider_keys.h"
#include "worker/queue/config/redis_keys.h"
#include "worker/queue/config/results_keys.h"
#include "worker/queue/config/traces_keys.h"
#include "worker/queue/config/webhook_secrets.h"
#include "worker/queue/config/webhook_target.h"
#include "worker/queue/config/worker_config.h"

namespace penstock::queue {
namespace {

constexpr size_t kMaxPrincipals = 64;

// Beside the socket lie its lock and its status page, whose names are longer.
constexpr size_t kMaxSocketBytes = sizeof(sockaddr_un{}.sun_path) - 1;

YAML::Node absent() { return YAML::Node(YAML::NodeType::Undefined); }

QueueConfig read_queue(const YAML::Node& node, const std::string& name, bool has_redis,
                       Complaints& complaints) {
  Section section(node, "queues." + name, complaints);
  QueueConfig queue;
  queue.name = name;
  section.number("max_length", queue.max_length, 1, 10'000'000);
  section.number("max_per_owner", queue.max_per_owner, 1, 10'000'000);
  section.duration("aging", queue.aging_ns, 0);
  section.duration("deadline", queue.deadline_ns, kNsPerMs);
  section.number("attempts", queue.attempts, 1, 100);
  section.duration("backoff", queue.backoff_ns, 0);
  section.duration("keep_results", queue.keep_results_ns, 0);
  section.duration("keep_bodies", queue.keep_bodies_ns, 0);
  section.boolean("shared", queue.shared);
  std::string on_error = "refuse";
  section.choice("on_error", on_error, {"refuse", "local"});
  queue.local_on_error = on_error == "local";
  if (section.has("on_error") && !queue.shared) {
    section.complain("on_error", "says what is done while Redis is away: it needs `shared: true`");
  }
  if (queue.shared && !has_redis) {
    section.complain("shared", "needs `redis`: its jobs are kept there, for all hosts");
  }
  section.done();
  return queue;
}

std::vector<QueueConfig> read_queues(const YAML::Node& node, bool has_redis,
                                     Complaints& complaints) {
  std::vector<QueueConfig> queues;
  const auto read = [&](const std::string& name, const YAML::Node& value, int line) {
    if (!good_name(name)) {
      complaints.add(line, "queues." + name, name_rule());
    } else if (queues.size() == wire::kMaxQueues - 1) {
      complaints.add(line, "queues." + name,
                     "one queue too many; the most is " + std::to_string(wire::kMaxQueues - 1));
    } else {
      queues.push_back(read_queue(value, name, has_redis, complaints));
    }
  };
  if (node.IsDefined()) {
    Section(node, "queues", complaints).each(read);
  }
  const auto is_default = [](const QueueConfig& queue) { return queue.name == "default"; };
  if (std::none_of(queues.begin(), queues.end(), is_default)) {
    queues.insert(queues.begin(), read_queue(absent(), "default", has_redis, complaints));
  }
  return queues;
}

// A device that several workers may name: a number, or the UUID of a GPU or of a MIG slice, as the
// driver writes it, so that one device has one name; empty: it is neither.
LimitsConfig read_limits(const YAML::Node& node, Complaints& complaints) {
  LimitsConfig limits;
  Section section(node, "limits", complaints);
  section.size("max_body", limits.max_body_bytes, 1, int64_t{512} << 20);
  section.size("max_held", limits.max_held_bytes, 1, int64_t{1} << 46);
  section.size("max_unsent", limits.max_unsent_bytes, 1, int64_t{1} << 30);
  section.duration("read_timeout", limits.read_timeout_ns, kNsPerSec);
  section.number("max_connections", limits.max_connections, 1, 1'000'000);
  section.duration("hello_timeout", limits.hello_timeout_ns, 10 * kNsPerMs);
  section.duration("heartbeat_timeout", limits.heartbeat_timeout_ns, 2 * kNsPerSec);
  section.duration("step_timeout", limits.step_timeout_ns, kNsPerSec);
  section.duration("start_timeout", limits.start_timeout_ns, kNsPerSec);
  section.duration("worker_grace", limits.worker_grace_ns, 0);
  section.size("max_state", limits.max_state_bytes, int64_t{1} << 20, int64_t{1} << 50);
  section.size("max_state_per_owner", limits.max_state_per_owner_bytes, int64_t{1} << 10,
               int64_t{1} << 50);
  section.size("max_result", limits.max_result_bytes, int64_t{1} << 10, int64_t{1} << 50);
  section.size("max_unwritten", limits.max_unwritten_bytes, int64_t{1} << 20, int64_t{1} << 46);
  section.size("reserve", limits.reserve_bytes, 0, int64_t{1} << 40);
  section.duration("keep_dead", limits.keep_dead_ns, kNsPerSec);
  section.duration("check_timeout", limits.check_timeout_ns, 0);
  section.size("max_checking", limits.max_checking_bytes, 0, int64_t{1} << 40);
  section.done();
  return limits;
}

void read_socket(Section& section, Config& config) {
  section.text("socket", config.socket);
  if (!section.has("socket")) {
    section.complain("socket", "is missing; write the path of the socket to listen on");
  } else if (config.socket.size() > kMaxSocketBytes) {
    section.complain("socket", fmt::format("the path has {} bytes; a socket's path has at most {}",
                                           config.socket.size(), kMaxSocketBytes));
  }
  section.text("socket_group", config.socket_group);
  std::string mode;
  if (section.scalar("socket_mode", mode)) {
    const char* const end = mode.data() + mode.size();
    const auto [rest, error] = std::from_chars(mode.data(), end, config.socket_mode, 8);
    if (error != std::errc() || rest != end || config.socket_mode > 0777) {
      section.complain("socket_mode", "must be an octal mode, like 0660");
    }
  }
  section.note("socket_mode", fmt::format("{:04o}", config.socket_mode));
}

// access: { operators: [...], edges: [...], viewers: [...], workers: [...] }
AccessConfig read_access(const YAML::Node& node, Complaints& complaints) {
  AccessConfig access;
  Section section(node, "access", complaints);
  for (const auto& [key, names] : {std::pair{"operators", &access.operators},
                                   {"edges", &access.edges},
                                   {"viewers", &access.viewers},
                                   {"workers", &access.workers}}) {
    const YAML::Node list = section.take(key);
    if (!list.IsDefined()) {
      continue;
    }
    if (!list.IsSequence() || list.size() == 0 || list.size() > kMaxPrincipals) {
      section.complain(key, fmt::format("must be a list of users and groups, 1 to {} of them, like "
                                        "[root, www-data]",
                                        kMaxPrincipals));
      continue;
    }
    for (const auto& item : list) {
      names->push_back(item.IsScalar() ? item.Scalar() : "");
    }
    if (const auto found = Principals::find(*names); !found) {
      section.complain(key, found.error().message);
    }
  }
  section.done();
  return access;
}

// log: { level: info, format: text, jobs: true }
LogConfig read_log(const YAML::Node& node, Complaints& complaints) {
  LogConfig log;
  Section section(node, "log", complaints);
  std::string level(name_of(log.settings.level));
  std::string format(name_of(log.settings.format));
  section.choice("level", level, {"debug", "info", "warn", "error"});
  section.choice("format", format, {"text", "json"});
  section.boolean("jobs", log.jobs);
  section.done();
  log.settings = {log_level_named(level).value_or(log.settings.level),
                  log_format_named(format).value_or(log.settings.format)};
  return log;
}

WebhooksConfig read_webhooks(const YAML::Node& node, const std::string& file, NamedFiles files,
                             Complaints& complaints) {
  WebhooksConfig webhooks;
  Section section(node, "webhooks", complaints);
  section.text("secret_file", webhooks.secret_file);
  if (!webhooks.secret_file.empty()) {
    const std::string named =
        std::exchange(webhooks.secret_file, relative_to(file, webhooks.secret_file));
    const auto text = files == NamedFiles::kNamed
                          ? Result<SecretFile>(SecretFile())
                          : read_secret_file(webhooks.secret_file, WebhookSecrets::kMostFileBytes);
    section.note_hidden("secret_file", named, text ? text->text : "");
    if (files == NamedFiles::kOpened) {
      if (const auto secrets = WebhookSecrets::load(webhooks.secret_file); !secrets) {
        section.complain("secret_file", secrets.error().message);
      }
    }
  }
  const YAML::Node allow = section.take("allow");
  if (allow.IsDefined() && !allow.IsSequence()) {
    section.complain("allow", "must be a list of addresses, blocks (10.0.0.0/8) and host names");
  } else if (allow.IsDefined()) {
    for (const auto& item : allow) {
      webhooks.allow.push_back(item.IsScalar() ? item.Scalar() : "");
    }
    if (const auto targets = WebhookTargets::create(webhooks.allow); !targets) {
      section.complain("allow", targets.error().message);
    }
  }
  section.done();
  return webhooks;
}

Config read_file(const YAML::Node& root, const std::string& path, NamedFiles files,
                 Complaints& complaints) {
  Section section(root, "", complaints);
  Config config;
  section.take("include");  // read_config_files() has followed it
  read_socket(section, config);
  section.text("state", config.state);
  if (!config.state.empty()) {
    config.state = relative_to(path, config.state);
  }
  section.text("worker_binary", config.worker_binary);
  section.duration("drain_timeout", config.drain_timeout_ns, 0);
  config.redis = read_redis(section.take("redis"), path, files == NamedFiles::kOpened, complaints);
  if (config.redis.replicas > 0 && config.state.empty()) {
    section.complain("redis",
                     "promise: replicas:N needs `state`: what is promised is kept there "
                     "until its end, to be told again should Redis lose it");
  }
  config.results = read_results(section.take("results"), path, complaints);
  if (config.results.is_there() && config.state.empty()) {
    section.complain("results", "needs `state`: what is served is brought there first");
  }
  config.queues = read_queues(section.take("queues"), !config.redis.at.empty(), complaints);
  read_workers(section.take("workers"), path, config, complaints);
  config.devices = read_devices(section.take("devices"), complaints);
  config.limits = read_limits(section.take("limits"), complaints);
  Section ledger(section.take("ledger"), "ledger", complaints);
  ledger.duration("keep", config.ledger.keep_ns, 3600 * kNsPerSec);
  ledger.number("max_rows", config.ledger.max_rows, 1000, 100'000'000);
  ledger.done();
  config.webhooks = read_webhooks(section.take("webhooks"), path, files, complaints);
  config.notify = read_notify(section.take("notify"), path, files, complaints);
  if (!config.notify.empty() && config.state.empty()) {
    section.complain("notify", "needs `state`: what is to be told is kept there until it was");
  }
  config.challenges = read_providers(section.take("challenges"), path, complaints);
  config.access = read_access(section.take("access"), complaints);
  config.log = read_log(section.take("log"), complaints);
  config.traces = read_traces(section.take("traces"), complaints);
  section.done();
  return config;
}

}  // namespace

namespace {

Result<Config> parse_files(const std::vector<ConfigFile>& all, NamedFiles files) {
  Complaints complaints(all.front().path);
  try {  // yaml-cpp speaks by exceptions; this is where they end
    Config config = read_file(join(all, complaints), all.front().path, files, complaints);
    std::string text;
    for (const ConfigFile& each : all) {
      text += each.text;
      config.files.push_back(each.path);
    }
    config.digest = limit::siphash13_128({}, text).lo;
    config.settings = std::move(complaints.settings());
    if (complaints.empty()) {
      return config;
    }
  } catch (const YAML::Exception& exception) {
    complaints.add(std::max(0, exception.mark.line) + 1, "", "not YAML: " + exception.msg);
  }
  return Error{complaints.text()};
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& path, NamedFiles files) {
  if (text.size() > kMaxConfigBytes) {
    return too_large(path, text.size());
  }
  return parse_files({{path, std::string(text)}}, files);
}

Result<Config> load_config(const std::string& path, NamedFiles files) {
  const auto all = read_config_files(path);
  return all ? parse_files(*all, files) : all.error();
}

Result<std::string> load_socket(const std::string& path) {
  const auto all = read_config_files(path);
  if (!all) {
    return all.error();
  }
  Complaints complaints(path);
  try {
    Config config;
    Section root(join(*all, complaints), "", complaints);
    read_socket(root, config);
    if (complaints.empty()) {
      return config.socket;
    }
  } catch (const YAML::Exception& exception) {
    complaints.add(std::max(0, exception.mark.line) + 1, "", "not YAML: " + exception.msg);
  }
  return Error{complaints.text()};
}

}  // namespace penstock::queue
