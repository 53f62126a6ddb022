#include "worker/queue/config/worker_config.h"

#include <fmt/format.h>
#include <algorithm>

#include "shared/http/body_fields.h"
#include "worker/queue/config/engine_keys.h"
#include "worker/queue/config/names.h"
#include "worker/queue/config/pace_keys.h"
#include "worker/queue/config/scaled_workers.h"

namespace penstock::queue {
namespace {

constexpr size_t kMaxWorkers = 256;
constexpr uint32_t kDefaultMostSlots = 64;  // of `slots: auto`
constexpr size_t kMaxDevices = 64;
constexpr size_t kMaxDeviceBytes = 64;
constexpr int64_t kMaxMemoryBytes = int64_t{1} << 50;  // of one; sums of all never overflow

std::string last_component(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') {
    path.remove_suffix(1);
  }
  return std::string(path.substr(path.rfind('/') + 1));
}

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

// slots: N | auto, with max_slots
void read_slots(Section& section, WorkerConfig& worker) {
  const YAML::Node slots = section.take("slots");
  worker.adaptive_slots = slots.IsDefined() && slots.IsScalar() && slots.Scalar() == "auto";
  if (worker.adaptive_slots) {
    worker.slots = kDefaultMostSlots;
    section.number("max_slots", worker.slots, 1, 65'536);
  } else {
    section.number("slots", worker.slots, 1, 65'536, "auto");
    if (section.has("max_slots")) {
      section.complain("max_slots", "is for slots: auto; else `slots` is the most");
      section.take("max_slots");
    }
  }
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
                     fmt::format("the model's name has {} bytes; callers can ask for at most {}; "
                                 "set a model_name",
                                 worker.model_name.size(), http::BodyFields::kMaxValueBytes));
  }
}

// min_workers, max_workers, target_wait, scale_down_after
void read_autoscale(Section& section, const WorkerConfig& worker, Config& config) {
  const uint32_t most = scaling_of(worker).most();
  const auto devices = static_cast<uint32_t>(worker.devices.size());
  AutoscaleConfig scale{.worker = worker.name,
                        .bounds = {.min = 1,
                                   .max = most,
                                   .target_wait_ns = AutoscaleConfig::kTargetWaitNs,
                                   .down_ns = AutoscaleConfig::kDownNs}};
  const bool has_least = section.given("min_workers");
  const bool has_most = section.given("max_workers");
  if (!has_least && !has_most) {
    for (const char* const key : {"target_wait", "scale_down_after"}) {
      if (section.given(key)) {
        section.complain(key,
                         fmt::format("is for a worker that scales; write max_workers: {} beside it",
                                     std::max(devices, 2U)));
      }
    }
    return;
  }
  section.number("min_workers", scale.bounds.min, 1, most);
  section.number("max_workers", scale.bounds.max, 1, most);
  section.duration("target_wait", scale.bounds.target_wait_ns, kNsPerMs);
  section.duration("scale_down_after", scale.bounds.down_ns, kNsPerSec);
  if (scale.bounds.min > scale.bounds.max) {
    section.complain("min_workers",
                     "is more than max_workers, " + std::to_string(scale.bounds.max));
  } else {
    config.autoscales.push_back(std::move(scale));
  }
}

WorkerConfig read_worker(const YAML::Node& node, const std::string& path, const std::string& file,
                         Config& config, Complaints& complaints) {
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
  read_engine_keys(section, file, worker);
  worker.kind = worker.engine == "process" ? "" : "text";
  section.choice("kind", worker.kind, {"text", "image"});
  section.boolean("external", worker.external);
  read_pace(section, worker, config);
  read_autoscale(section, worker, config);
  section.done();
  complaints.settings().rename(path + ".", "workers." + worker.name + ".");
  return worker;
}

// `all`: their list.
void check_worker(const WorkerConfig& worker, const Config& config, const YAML::Node& all, int line,
                  const std::string& path, Complaints& complaints) {
  for (size_t i = 0; i < config.workers.size(); ++i) {
    if (config.workers[i].name == worker.name && !worker.name.empty()) {
      complaints.add(line, path + ".name",
                     "two workers are called '" + worker.name + "'; the other is at " +
                         complaints.place_of(line_of(all[i])));
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

}  // namespace

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
    const std::string path = fmt::format("workers[{}]", config.workers.size());
    if (config.workers.size() == kMaxWorkers) {
      complaints.add(line_of(item), path, "one worker too many; the most is 256");
      return;
    }
    WorkerConfig worker = read_worker(item, path, file, config, complaints);
    check_worker(worker, config, node, line_of(item), path, complaints);
    config.workers.push_back(std::move(worker));
  }
  for (size_t i = 0; i < config.workers.size(); ++i) {
    const std::string& key = config.workers[i].limit_key;
    if (!key.empty() && find_pace(config, key) == nullptr) {
      complaints.add(line_of(node[i]), fmt::format("workers[{}].limit_key", i),
                     "no worker says the limit, quota or concurrency of " + key);
    }
  }
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

}  // namespace penstock::queue
