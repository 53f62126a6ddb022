#include "worker/nvml/watch.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "shared/wire/messages.h"
#include "worker/nvml/nvml.h"

namespace penstock::nvml {
namespace {

constexpr int kEachMs = 1000;

bool send_all(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (put < 0 && errno != EINTR) {
      return false;
    }
    bytes.remove_prefix(static_cast<size_t>(std::max<ssize_t>(put, 0)));
  }
  return true;
}

// False: penstockd has closed, or said that it will.
bool rest(int socket) {
  pollfd end = {socket, POLLIN, 0};
  return ::poll(&end, 1, kEachMs) <= 0;
}

void append_reading(std::string& out, const Reading& reading) {
  wire::append(out, 0,
               wire::Device{.index = reading.index,
                            .parent_plus1 = reading.parent ? *reading.parent + uint64_t{1} : 0,
                            .uuid = reading.uuid,
                            .name = reading.name,
                            .known = reading.known,
                            .utilization_percent = reading.utilization_percent,
                            .memory_used_bytes = reading.memory_used_bytes,
                            .memory_total_bytes = reading.memory_total_bytes,
                            .temperature_celsius = reading.temperature_celsius,
                            .power_mw = reading.power_mw,
                            .health = static_cast<uint64_t>(reading.health),
                            .message = reading.message});
}

bool all_answer(const std::vector<Reading>& readings) {
  return std::all_of(readings.begin(), readings.end(), [](const Reading& each) {
    return each.health == wire::DeviceHealth::kGood || each.health == wire::DeviceHealth::kMemory;
  });
}

int give_up(int socket, const std::string& why) {
  std::string out;
  wire::append(out, 0, wire::Goodbye{why});
  send_all(socket, out);
  return 1;
}

int look_again_and_again(int socket, Nvml& nvml) {
  for (;;) {
    auto readings = nvml.read();
    if (!readings) {
      return give_up(socket, readings.error().message);
    }
    std::string out;
    for (const Reading& reading : *readings) {
      append_reading(out, reading);
    }
    wire::append(out, 0, wire::Devices{.count = readings->size()});
    const bool let_go = !all_answer(*readings);
    if (let_go) {
      nvml.release();
    }
    if (!send_all(socket, out) || !rest(socket)) {
      return 0;
    }
    if (let_go) {
      if (Status acquired = nvml.acquire(); !acquired) {
        return give_up(socket, acquired.error().message);
      }
    }
  }
}

}  // namespace

int watch_devices(Fd socket, const char* library) {
  std::string hello;
  wire::append(
      hello, 0,
      wire::Hello{.version = wire::kVersion, .role = static_cast<uint64_t>(wire::Role::kWatch)});
  if (!send_all(socket.get(), hello)) {
    return 0;
  }
  auto opened = Nvml::open(library);
  if (const auto* none = std::get_if<NoDriver>(&opened)) {
    std::string out;
    wire::append(out, 0, wire::Devices{.message = none->why});
    send_all(socket.get(), out);
    return 0;
  }
  if (const auto* error = std::get_if<Error>(&opened)) {
    return give_up(socket.get(), error->message);
  }
  return look_again_and_again(socket.get(), std::get<Nvml>(opened));
}

}  // namespace penstock::nvml
