#include "worker/queue/config/config.h"

#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "shared/base/units.h"
#include "shared/http/body_fields.h"
#include "shared/limit/siphash.h"
#include "shared/wire/status_page.h"
#include "worker/queue/config/config_section.h"
#include "worker/queue/config/webhook_target.h"
#include "worker/queue/webhooks/signature.h"

namespace penstock::queue {
namespace {

constexpr size_t kMaxWorkers = 256;
constexpr uint32_t kDefaultMostSlots = 64;  // of `slots: auto`
constexpr size_t kMaxDevices = 64;
constexpr size_t kMaxPrincipals = 64;
constexpr size_t kMaxDeviceBytes = 64;
constexpr int64_t kMaxMemoryBytes = int64_t{1} << 50;  // of one; sums of all never overflow
constexpr size_t kMaxNameBytes = wire::kQueueNameBytes - 1;

// Beside the socket lie its lock and its status page, whose names are longer.
constexpr size_t kMaxSocketBytes = sizeof(sockaddr_un{}.sun_path) - 1;

bool good_name(std::string_view name) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
  return !name.empty() && name.size() <= kMaxNameBytes && name.front() != '-' &&
         name.find_first_not_of(kAllowed) == std::string_view::npos;
}

std::string name_rule() {
  return "a name is 1 to " + std::to_string(kMaxNameBytes) +
         " letters, digits, '_', '.' or '-', and does not begin with '-'";
}

std::string last_component(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') {
    path.remove_suffix(1);
  }
  return std::string(path.substr(path.rfind('/') + 1));
}

std::string relative_to(const std::string& file, const std::string& path) {
  const size_t slash = file.rfind('/');
  return path.front() == '/' || slash == std::string::npos ? path
                                                           : file.substr(0, slash + 1) + path;
}

QueueConfig read_queue(const YAML::Node& node, const std::string& name, Complaints& complaints) {
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
  section.done();
  return queue;
}

std::vector<QueueConfig> read_queues(const YAML::Node& node, Complaints& complaints) {
  std::vector<QueueConfig> queues;
  const auto read = [&](const std::string& name, const YAML::Node& value, int line) {
    if (!good_name(name)) {
      complaints.add(line, "queues." + name, name_rule());
    } else if (queues.size() == wire::kMaxQueues - 1) {
      complaints.add(line, "queues." + name,
                     "one queue too many; the most is " + std::to_string(wire::kMaxQueues - 1));
    } else {
      queues.push_back(read_queue(value, name, complaints));
    }
  };
  if (node.IsDefined()) {
    Section(node, "queues", complaints).each(read);
  }
  const auto is_default = [](const QueueConfig& queue) { return queue.name == "default"; };
  if (std::none_of(queues.begin(), queues.end(), is_default)) {
    queues.insert(queues.begin(), QueueConfig{"default"});
  }
  return queues;
}

// A device that several workers may name: a number, or the UUID of a GPU or of a MIG slice, as the
// driver writes it, so that one device has one name; empty: it is neither.
std::string device_id(std::string_view word) {
  if (!word.empty() && word.size() <= 3 &&
      word.find_first_not_of("0123456789") == std::string_view::npos) {
    return std::to_string(std::stoi(std::string(word)));
  }
  const bool uuid =
      word.size() <= kMaxDeviceBytes &&
      (word.substr(0, 4) == "GPU-" || word.substr(0, 4) == "MIG-") && word.size() > 4 &&
      word.find_first_not_of("0123456789abcdefABCDEFGPUMI-/") == std::string_view::npos;
  std::string id(uuid ? word : "");
  for (char& c : id) {
    c = static_cast<char>(c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c);
  }
  return id;
}

// device: auto | cpu | N | UUID | [N or UUID, ...]
void read_device(Section& section, std::vector<std::string>& devices) {
  const YAML::Node value = section.take("device");
  if (!value.IsDefined()) {
    return;
  }
  std::vector<std::string> words;
  if (value.IsSequence()) {
    for (size_t i = 0; i < std::min(value.size(), kMaxDevices + 1); ++i) {
      words.push_back(value[i].IsScalar() ? device_id(value[i].Scalar()) : "");
    }
  } else {
    const std::string word = value.IsScalar() ? value.Scalar() : "";
    words.push_back(word == "auto" || word == "cpu" ? word : device_id(word));
  }
  const auto good = [](const std::string& word) { return !word.empty(); };
  if (words.empty() || words.size() > kMaxDevices ||
      !std::all_of(words.begin(), words.end(), good)) {
    section.complain("device",
                     "must be auto, cpu, a GPU's number or UUID (GPU-..., MIG-...), or a list of "
                     "these, at most 64");
    return;
  }
  for (const std::string& word : words) {
    if (std::count(words.begin(), words.end(), word) > 1) {
      section.complain("device", "names " + word + " twice");
      return;
    }
  }
  devices = words;
}

// devices: { 0: { slots: 8, memory: 60GiB } }
std::vector<DeviceConfig> read_devices(const YAML::Node& node, Complaints& complaints) {
  std::vector<DeviceConfig> devices;
  if (!node.IsDefined()) {
    return devices;
  }
  Section(node, "devices", complaints)
      .each([&](const std::string& word, const YAML::Node& value, int line) {
        const std::string path = "devices." + word.substr(0, kMaxDeviceBytes);
        const std::string id = device_id(word);
        const auto same = [&](const DeviceConfig& each) { return each.id == id; };
        if (id.empty()) {
          return complaints.add(line, path,
                                "must be a GPU's number or UUID, as in a worker's `device`");
        }
        if (std::any_of(devices.begin(), devices.end(), same)) {
          return complaints.add(line, path, "comes twice; keep one");
        }
        if (devices.size() == kMaxDevices) {
          return complaints.add(line, path, "one device too many; the most is 64");
        }
        Section section(value, path, complaints);
        DeviceConfig& device = devices.emplace_back();
        device.id = id;
        section.number("slots", device.slots, 1, 65'536);
        section.size("memory", device.memory_bytes, 1, kMaxMemoryBytes);
        section.done();
      });
  return devices;
}

// The simulate engine's keys, normalised for its command line; other engines refuse them.
void read_simulate(Section& section, WorkerConfig& worker) {
  auto& options = worker.options;
  const auto set = [&](const std::string& key, const std::string& name, const auto& read) {
    const bool given = section.has(key);
    const std::string value = read(key);
    if (given && worker.engine != "simulate") {
      section.complain(key, "is for engine simulate, and this worker's is " + worker.engine);
    } else if (given) {
      options.emplace_back(name, value);
    }
  };
  const auto duration = [&](const std::string& key) {
    int64_t ns = 0;
    section.duration(key, ns, 0);
    return std::to_string(ns);
  };
  const auto whole = [&](uint32_t min, uint32_t max) {
    return [&section, min, max](const std::string& key) {
      uint32_t value = 0;
      section.number(key, value, min, max);
      return std::to_string(value);
    };
  };
  const auto size = [&](const std::string& key) {
    int64_t bytes = 0;
    section.size(key, bytes, 0, INT64_MAX);
    return std::to_string(bytes);
  };
  const auto fraction = [&](double max) {
    return [&section, max](const std::string& key) {
      double value = 0;
      section.fraction(key, value, 0, max);
      std::ostringstream out;
      out << value;
      return out.str();
    };
  };
  const auto distribution = [&](const std::string& key) {
    std::string value;
    section.choice(key, value, {"constant", "exponential", "lognormal"});
    return value;
  };
  set("service_time", "service_time_ns", duration);
  set("distribution", "distribution", distribution);
  set("sigma", "sigma", fraction(5));
  set("tokens_per_second", "tokens_per_second", fraction(1e9));
  set("output_tokens", "output_tokens", whole(1, 1'000'000));
  set("job_memory", "job_memory", size);
  set("parallel", "parallel", whole(1, 1'000'000));
  set("failure_rate", "failure_rate", fraction(1));
  set("seed", "seed", whole(0, UINT32_MAX));
  for (const char* const file : {"run_log", "occupancy", "faults", "crash_on"}) {
    set(file, file, [&](const std::string& key) {
      std::string value;
      section.text(key, value);
      return value;
    });
  }
}

// slots: N | auto, with max_slots
void read_slots(Section& section, WorkerConfig& worker) {
  const YAML::Node slots = section.take("slots");
  worker.adaptive_slots = slots.IsDefined() && slots.IsScalar() && slots.Scalar() == "auto";
  if (worker.adaptive_slots) {
    worker.slots = kDefaultMostSlots;
    section.number("max_slots", worker.slots, 1, 65'536);
  } else {
    section.number("slots", worker.slots, 1, 65'536);
    if (section.has("max_slots")) {
      section.complain("max_slots", "is for slots: auto; else `slots` is the most");
      section.take("max_slots");
    }
  }
}

// What requests may hold, whichever engine reads them.
void read_rules(Section& section, WorkerConfig& worker) {
  for (const char* const key : {"lenient", "steering"}) {
    bool on = false;
    section.boolean(key, on);
    if (on) {
      worker.options.emplace_back(key, "true");
    }
  }
}

// Of two engines on one GPU, whose kernels go first.
void read_gpu_priority(Section& section, WorkerConfig& worker) {
  if (!section.has("gpu_priority")) {
    return;
  }
  std::string priority;
  section.choice("gpu_priority", priority, {"high", "low"});
  if (worker.engine != "llama") {
    section.complain("gpu_priority", "is for engine llama, and this worker's is " + worker.engine);
  }
  worker.options.emplace_back("gpu_priority", priority);
}

void read_engine(Section& section, WorkerConfig& worker) {
  section.choice("engine", worker.engine, {"llama", "simulate", "http", "process"});
  if (!section.has("engine")) {
    section.complain("engine", "is missing; write engine: llama or engine: simulate");
  } else if (worker.engine == "http" || worker.engine == "process") {
    section.complain("engine", worker.engine + " is not in this version; llama and simulate are");
  }
  section.take("url");      // of engine http
  section.take("command");  // of engine process
}

void read_model(Section& section, const std::string& file, WorkerConfig& worker) {
  section.text("model", worker.model);
  section.text("model_name", worker.model_name);
  if (worker.engine == "llama") {
    if (worker.model.empty()) {
      section.complain("model", "is missing; engine llama needs the folder of a model");
      return;
    }
    worker.model_path = relative_to(file, worker.model);
  }
  if (worker.model_name.empty()) {
    worker.model_name = worker.engine == "llama" ? last_component(worker.model)
                        : worker.model.empty()   ? worker.name
                                                 : worker.model;
  }
  if (worker.model_name.size() > http::BodyFields::kMaxValueBytes) {
    section.complain(section.has("model_name") ? "model_name" : "model",
                     "the model's name has " + std::to_string(worker.model_name.size()) +
                         " bytes; callers can ask for at most " +
                         std::to_string(http::BodyFields::kMaxValueBytes) + "; set a model_name");
  }
}

WorkerConfig read_worker(const YAML::Node& node, const std::string& path, const std::string& file,
                         Complaints& complaints) {
  Section section(node, path, complaints);
  WorkerConfig worker;
  section.text("name", worker.name);
  if (!section.has("name")) {
    section.complain("name", "is missing; " + name_rule());
  } else if (!good_name(worker.name)) {
    section.complain("name", name_rule());
  }
  read_engine(section, worker);
  read_model(section, file, worker);
  read_device(section, worker.devices);
  read_slots(section, worker);
  section.size("memory", worker.memory_bytes, 1, kMaxMemoryBytes);
  section.text("queue", worker.queue);
  section.number("threads", worker.threads, 1, 1024);
  read_rules(section, worker);
  read_gpu_priority(section, worker);
  read_simulate(section, worker);
  section.done();
  return worker;
}

void check_worker(const WorkerConfig& worker, const Config& config, int line,
                  const std::string& path, Complaints& complaints) {
  for (const WorkerConfig& other : config.workers) {
    if (other.name == worker.name && !worker.name.empty()) {
      complaints.add(line, path + ".name", "two workers are called '" + worker.name + "'");
    }
  }
  std::vector<std::string> names;
  for (const QueueConfig& queue : config.queues) {
    names.push_back(queue.name);
  }
  if (std::find(names.begin(), names.end(), worker.queue) == names.end()) {
    complaints.add(line, path + ".queue",
                   "there is no queue '" + worker.queue.substr(0, kMaxNameBytes) +
                       "'; did you mean '" + nearest(worker.queue, names) + "'?");
  }
}

void read_workers(const YAML::Node& node, const std::string& file, Config& config,
                  Complaints& complaints) {
  if (!node.IsDefined() || node.IsNull()) {
    return;
  }
  if (!node.IsSequence()) {
    complaints.add(line_of(node), "workers", "must be a list, one '- { name: ... }' a worker");
    return;
  }
  for (const auto& item : node) {
    const std::string path = "workers[" + std::to_string(config.workers.size()) + "]";
    if (config.workers.size() == kMaxWorkers) {
      complaints.add(line_of(item), path, "one worker too many; the most is 256");
      return;
    }
    WorkerConfig worker = read_worker(item, path, file, complaints);
    check_worker(worker, config, line_of(item), path, complaints);
    config.workers.push_back(std::move(worker));
  }
}

LimitsConfig read_limits(const YAML::Node& node, Complaints& complaints) {
  LimitsConfig limits;
  if (!node.IsDefined()) {
    return limits;
  }
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
    section.complain("socket", "the path has " + std::to_string(config.socket.size()) +
                                   " bytes; a socket's path has at most " +
                                   std::to_string(kMaxSocketBytes));
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
}

// access: { operators: [...], edges: [...], viewers: [...] }
AccessConfig read_access(const YAML::Node& node, Complaints& complaints) {
  AccessConfig access;
  if (!node.IsDefined()) {
    return access;
  }
  Section section(node, "access", complaints);
  for (const auto& [key, names] : {std::pair{"operators", &access.operators},
                                   {"edges", &access.edges},
                                   {"viewers", &access.viewers}}) {
    const YAML::Node list = section.take(key);
    if (!list.IsDefined()) {
      continue;
    }
    if (!list.IsSequence() || list.size() == 0 || list.size() > kMaxPrincipals) {
      section.complain(key, "must be a list of users and groups, 1 to " +
                                std::to_string(kMaxPrincipals) + " of them, like [root, www-data]");
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

WebhooksConfig read_webhooks(const YAML::Node& node, const std::string& file, NamedFiles files,
                             Complaints& complaints) {
  WebhooksConfig webhooks;
  if (!node.IsDefined()) {
    return webhooks;
  }
  Section section(node, "webhooks", complaints);
  section.text("secret_file", webhooks.secret_file);
  if (!webhooks.secret_file.empty()) {
    webhooks.secret_file = relative_to(file, webhooks.secret_file);
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
  read_socket(section, config);
  section.text("state", config.state);
  if (!config.state.empty()) {
    config.state = relative_to(path, config.state);
  }
  section.text("worker_binary", config.worker_binary);
  section.duration("drain_timeout", config.drain_timeout_ns, 0);
  config.queues = read_queues(section.take("queues"), complaints);
  read_workers(section.take("workers"), path, config, complaints);
  config.devices = read_devices(section.take("devices"), complaints);
  config.limits = read_limits(section.take("limits"), complaints);
  config.webhooks = read_webhooks(section.take("webhooks"), path, files, complaints);
  config.access = read_access(section.take("access"), complaints);
  section.done();
  return config;
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& path, NamedFiles files) {
  if (text.size() > kMaxConfigBytes) {
    return Error{path + ": the file has " + std::to_string(text.size()) +
                 " bytes; a configuration has at most " + std::to_string(kMaxConfigBytes)};
  }
  Complaints complaints(path);
  try {  // yaml-cpp speaks by exceptions; this is where they end
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    for (size_t i = 1; i < documents.size(); ++i) {
      if (!documents[i].IsNull()) {
        complaints.add(line_of(documents[i]), "",
                       "a second YAML document (---) begins; a configuration is one");
      }
    }
    const YAML::Node root = documents.empty() ? YAML::Node() : documents.front();
    Config config = read_file(root, path, files, complaints);
    config.digest = limit::siphash13_128({}, text).lo;
    if (complaints.empty()) {
      return config;
    }
  } catch (const YAML::Exception& exception) {
    complaints.add(std::max(0, exception.mark.line) + 1, "", "not YAML: " + exception.msg);
  }
  return Error{complaints.text()};
}

Result<Config> load_config(const std::string& path, NamedFiles files) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return Error{path + ": cannot be read: " + std::strerror(errno)};
  }
  std::string text(kMaxConfigBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return parse_config(text, path, files);
}

}  // namespace penstock::queue
