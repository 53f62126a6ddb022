// The messages of the process that watches the devices, as in messages.h.
#pragma once

#include <cstdint>
#include <string_view>

#include "shared/wire/message_codec.h"

namespace penstock::wire {

enum class DeviceHealth : uint64_t {
  kGood = 0,
  kLost = 1,           // it has fallen off the bus
  kResetRequired = 2,  // it does nothing more until it is reset
  kMemory = 3,         // its memory has errors that it cannot put right
  kUnreadable = 4,     // its driver does not answer for it
};

// What was read of a device; a figure without its bit is not known.
enum DeviceFigure : uint64_t {
  kUtilizationKnown = 1,
  kMemoryKnown = 2,
  kTemperatureKnown = 4,
  kPowerKnown = 8,
};

// One GPU, or one slice of a GPU that is divided (MIG).
struct Device {
  static constexpr FrameType kType = FrameType::kDevice;
  uint64_t index = 0;         // as the driver counts: GPUs, or the slices of one
  uint64_t parent_plus1 = 0;  // a slice: its GPU's index + 1
  std::string_view uuid;      // "GPU-…", "MIG-…"
  std::string_view name;      // "NVIDIA H100 80GB HBM3"
  uint64_t known = 0;         // of DeviceFigure
  uint64_t utilization_percent = 0;
  uint64_t memory_used_bytes = 0;
  uint64_t memory_total_bytes = 0;
  uint64_t temperature_celsius = 0;
  uint64_t power_mw = 0;
  uint64_t health = 0;       // DeviceHealth
  std::string_view message;  // what is wrong with it; of one that is good, what is to be known
  template <typename V>
  void visit(V&& v) {
    v(70, index), v(71, parent_plus1), v(72, uuid), v(3, name), v(73, known);
    v(74, utilization_percent), v(75, memory_used_bytes), v(76, memory_total_bytes);
    v(77, temperature_celsius), v(78, power_mw), v(79, health), v(26, message);
  }
};

// All devices have been told of: the end of a round of DEVICE frames.
struct Devices {
  static constexpr FrameType kType = FrameType::kDevices;
  uint64_t count = 0;        // of DEVICE frames since the last of these
  std::string_view message;  // why there are none
  template <typename V>
  void visit(V&& v) {
    v(80, count), v(26, message);
  }
};

}  // namespace penstock::wire
