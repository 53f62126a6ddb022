#include "worker/queue/devices/watch.h"

#include <algorithm>
#include <cstdlib>

#include "shared/base/units.h"
#include "shared/wire/messages.h"
#include "worker/queue/process/worker_command.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

DeviceState state_of(const wire::Device& device) {
  DeviceState state{
      .index = static_cast<uint32_t>(device.index),
      .uuid = std::string(device.uuid.substr(0, DeviceWatch::kMaxTextBytes)),
      .name = std::string(device.name.substr(0, DeviceWatch::kMaxTextBytes)),
      .known = device.known,
      .utilization_percent = device.utilization_percent,
      .memory_used_bytes = device.memory_used_bytes,
      .memory_total_bytes = device.memory_total_bytes,
      .temperature_celsius = device.temperature_celsius,
      .power_mw = device.power_mw,
      .health = static_cast<wire::DeviceHealth>(device.health),
      .message = std::string(device.message.substr(0, DeviceWatch::kMaxMessageBytes))};
  if (device.parent_plus1 > 0) {
    state.parent = static_cast<uint32_t>(device.parent_plus1 - 1);
  }
  return state;
}

// Which it is and whether it may be used, without its figures.
bool same_standing(const DeviceState& a, const DeviceState& b) {
  return a.index == b.index && a.parent == b.parent && a.uuid == b.uuid && a.name == b.name &&
         a.health == b.health && a.message == b.message;
}

const DeviceState* find(const std::vector<DeviceState>& devices, const DeviceState& wanted) {
  const auto found = std::find_if(devices.begin(), devices.end(), [&](const DeviceState& each) {
    return each.index == wanted.index && each.parent == wanted.parent;
  });
  return found == devices.end() ? nullptr : &*found;
}

std::string told(const DeviceState& device) {
  return "device " + device.label() + ", " + (device.name.empty() ? "unknown" : device.name) +
         (device.uuid.empty() ? "" : " (" + device.uuid + ")");
}

}  // namespace

std::string DeviceState::label() const {
  return parent ? std::to_string(*parent) + ":" + std::to_string(index) : std::to_string(index);
}

const char* name_of(wire::DeviceHealth health) {
  constexpr const char* kNames[] = {"good", "lost", "reset required", "broken memory",
                                    "unreadable"};
  return kNames[static_cast<size_t>(health)];
}

// penstockd's end of the socket pair to the process.
class DeviceWatch::Session final : public Connection {
 public:
  Session(ConnectionLoop& connections, Fd fd, DeviceWatch& watch)
      : Connection(connections, std::move(fd)), watch_(watch) {}

 private:
  void on_frame(const wire::Frame& frame, std::string_view) override {
    watch_.heard();
    if (const char* const error = read(frame); error != nullptr) {
      refuse(error);
    }
  }
  void on_closed() override { watch_.closed(std::move(last_words_)); }
  void on_refused(std::string_view reason) override {
    last_words_ = "the watch broke the protocol: " + std::string(reason);
  }

  // The rule that was broken, or nullptr.
  const char* read(const wire::Frame& frame) {
    switch (frame.header.type) {
      case wire::FrameType::kHello:
        return on_hello(frame);
      case wire::FrameType::kDevice:
        return said_hello_ ? on_device(frame) : "the first frame is not HELLO";
      case wire::FrameType::kDevices:
        return said_hello_ ? on_devices(frame) : "the first frame is not HELLO";
      case wire::FrameType::kGoodbye: {
        wire::Goodbye goodbye;
        if (wire::parse(frame.payload, goodbye) == nullptr) {
          last_words_ = goodbye.message.substr(0, kMaxMessageBytes);
        }
        close();
        return nullptr;
      }
      default:
        return "a frame that the watch of devices does not send";
    }
  }

  const char* on_hello(const wire::Frame& frame) {
    wire::Hello hello;
    if (const char* const error = wire::parse(frame.payload, hello); error != nullptr) {
      return error;
    }
    if (hello.version < wire::kVersion || hello.version > wire::kNewestVersion) {
      return "another version of the protocol; these are versions 1 to 3";
    }
    said_hello_ = hello.role == static_cast<uint64_t>(wire::Role::kWatch);
    return said_hello_ ? nullptr : "HELLO is not from the watch of devices";
  }

  const char* on_device(const wire::Frame& frame) {
    wire::Device device;
    if (const char* const error = wire::parse(frame.payload, device); error != nullptr) {
      return error;
    }
    if (device.index >= kMaxDevices || device.parent_plus1 > kMaxDevices) {
      return "DEVICE has an index that no host has";
    }
    if (device.health > static_cast<uint64_t>(wire::DeviceHealth::kUnreadable)) {
      return "DEVICE has a health that is not known";
    }
    if (round_.size() == kMaxDevices) {
      return "more devices than any host has";
    }
    DeviceState state = state_of(device);
    if (find(round_, state) != nullptr) {
      return "DEVICE of one that was told of";
    }
    round_.push_back(std::move(state));
    return nullptr;
  }

  const char* on_devices(const wire::Frame& frame) {
    wire::Devices devices;
    if (const char* const error = wire::parse(frame.payload, devices); error != nullptr) {
      return error;
    }
    if (devices.count != round_.size()) {
      return "DEVICES with another count than came";
    }
    watch_.round(std::exchange(round_, {}), devices.message.substr(0, kMaxMessageBytes));
    return nullptr;
  }

  DeviceWatch& watch_;
  bool said_hello_ = false;
  std::vector<DeviceState> round_;  // so far
  std::string last_words_;
};

DeviceWatch::DeviceWatch(ConnectionLoop& connections) : connections_(connections) {}

DeviceWatch::~DeviceWatch() { child_.kill(); }

void DeviceWatch::apply(const Config& config) {
  binary_ =
      config.worker_binary.empty() ? binary_beside_this("penstock-worker") : config.worker_binary;
  patience_ns_ = config.limits.heartbeat_timeout_ns;
  const bool wanted =
      std::getenv("PENSTOCK_NVML") != nullptr ||
      std::any_of(config.workers.begin(), config.workers.end(),
                  [](const WorkerConfig& worker) { return worker.may_use_a_gpu(); });
  if (wanted && !wanted_) {
    wanted_ = true;
    start_ns_ = connections_.now_ns();
    advance_to(start_ns_);
  } else if (!wanted && wanted_) {
    stop();
  }
}

void DeviceWatch::stop() {
  wanted_ = false;
  if (child_.lives()) {
    child_.kill();
    kill_ns_ = INT64_MAX;
  }
  if (session_ != nullptr) {
    session_->close();
  }
  const bool change = !devices_.empty() || watching();
  devices_.clear();
  trouble_.clear();
  ended_ = "stopped";
  told_.clear();
  watching_since_ns_ = 0;
  if (change && on_change) {
    on_change();
  }
}

void DeviceWatch::start(int64_t now_ns) {
  auto spawned = spawn({binary_, "--watch-devices", "--fd", "3"});
  if (!spawned) {
    trouble_ = spawned.error().message;
    start_ns_ = now_ns + backoff_.after(0);
    return log(Level::kError,
               "devices: " + trouble_ + "; next attempt in " + format_duration(start_ns_ - now_ns));
  }
  running_ = true;
  child_ = spawned->child;
  kill_ns_ = now_ns + kFirstRoundNs;
  no_driver_ = false;
  watched_ns_ = 0;
  ended_.clear();
  session_ = std::make_unique<Session>(connections_, std::move(spawned->socket), *this);
  if (const Status opened = session_->open(); !opened) {
    ended_ = opened.error().message;
    session_->close();
  }
}

void DeviceWatch::kill(const std::string& why) {
  trouble_ = ended_ = why;
  log(Level::kWarn, "devices: " + why + "; killing process " + std::to_string(child_.pid()));
  told_ = why;
  kill_ns_ = INT64_MAX;
  child_.kill();
  lose_sight();
  if (session_ != nullptr) {
    session_->close();
  }
}

void DeviceWatch::heard() {
  if (watching()) {
    kill_ns_ = connections_.now_ns() + patience_ns_;
  }
}

void DeviceWatch::round(std::vector<DeviceState> devices, std::string_view message) {
  if (!wanted_) {
    return;
  }
  no_driver_ = devices.empty() && !message.empty();
  trouble_ = ended_ = message;
  if (!no_driver_ && !watching()) {
    watching_since_ns_ = connections_.now_ns();
    heard();
    if (!told_.empty()) {
      log(Level::kInfo, "devices: watched again");
    }
    told_.clear();
  }
  for (DeviceState& device : devices) {
    const DeviceState* const before = find(devices_, device);
    if (device.uuid.empty() && before != nullptr) {  // one that is lost cannot say which it was
      device.uuid = before->uuid;
      device.name = before->name;
    }
  }
  const bool change =
      !std::equal(devices.begin(), devices.end(), devices_.begin(), devices_.end(), same_standing);
  tell_changes(devices);
  devices_ = std::move(devices);
  if (change && on_change) {
    on_change();
  }
}

void DeviceWatch::tell_changes(const std::vector<DeviceState>& now) const {
  for (const DeviceState& device : now) {
    const DeviceState* const before = find(devices_, device);
    if (before != nullptr && same_standing(*before, device)) {
      continue;
    }
    const std::string condition = std::string(device.healthy() ? "" : name_of(device.health)) +
                                  (device.healthy() || device.message.empty() ? "" : ": ") +
                                  device.message;
    log(device.healthy() && device.message.empty() ? Level::kInfo : Level::kWarn,
        told(device) + ": " + (condition.empty() ? "good" : condition));
  }
  for (const DeviceState& device : devices_) {
    if (find(now, device) == nullptr) {
      log(Level::kWarn, told(device) + ": is there no more");
    }
  }
}

// Nobody looks: what was seen of use and heat says nothing of now.
void DeviceWatch::lose_sight() {
  const bool change = watching();
  if (change) {
    watched_ns_ = connections_.now_ns() - watching_since_ns_;
  }
  watching_since_ns_ = 0;
  for (DeviceState& device : devices_) {
    device.known = 0;
  }
  if (change && on_change) {
    on_change();
  }
}

void DeviceWatch::closed(std::string last_words) {
  if (!last_words.empty()) {
    ended_ = std::move(last_words);
  }
  session_.reset();
  if (kill_ns_ != INT64_MAX) {  // else it was killed
    kill_ns_ = std::min(kill_ns_, connections_.now_ns() + Child::kLingerNs);
  }
  settle();
}

void DeviceWatch::reap() {
  if (child_.reap()) {
    settle();
  }
}

// Once the process is reaped and its last frames are read, the next start is known.
void DeviceWatch::settle() {
  if (!running_ || child_.lives() || session_ != nullptr) {
    return;
  }
  const int64_t now_ns = connections_.now_ns();
  running_ = false;
  kill_ns_ = INT64_MAX;
  lose_sight();
  if (!wanted_) {
    return;
  }
  if (ended_.empty()) {
    ended_ = child_.signal() != 0 ? "a call to the driver ended the watch by signal " +
                                        std::to_string(child_.signal())
                                  : "the watch " + child_.end();
  }
  trouble_ = ended_;
  start_ns_ = now_ns + (no_driver_ ? kLookAgainNs : backoff_.after(watched_ns_));
  if (trouble_ != told_) {
    told_ = trouble_;
    log(no_driver_ ? Level::kInfo : Level::kWarn, "devices: " + trouble_);
  }
}

// When there is something to do.
int64_t DeviceWatch::due_ns() const {
  return running_ ? kill_ns_ : wanted_ ? start_ns_ : INT64_MAX;
}

void DeviceWatch::advance_to(int64_t now_ns) {
  if (due_ns() > now_ns) {
    return;
  }
  if (!running_) {
    return start(now_ns);
  }
  if (!child_.lives()) {
    kill_ns_ = INT64_MAX;  // reaped; only its socket is left
    return session_->close();
  }
  kill(session_ == nullptr ? "the watch closed its socket and did not exit"
       : watching()        ? "the driver has not answered for " + format_duration(patience_ns_)
                           : "the driver has not answered for " + format_duration(kFirstRoundNs));
}

int64_t DeviceWatch::next_event() const { return due_ns(); }

}  // namespace penstock::queue
