// Nvml: what the NVIDIA driver tells of its GPUs.
//
// Its library comes with the driver and is loaded when this runs, so nothing of NVIDIA's is needed
// to build, and a host without a GPU is an answer like any other. What is called of it is declared
// in nvml.cc.
//
// A call may hang, or take the process down, when a GPU is in a bad way: use it in a process that
// others can do without (watch.h).
//
// Source: NVML API Reference Guide, docs.nvidia.com/deploy/nvml-api.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "shared/base/result.h"
#include "shared/wire/device_messages.h"

namespace penstock::nvml {

// A GPU, or a slice of one, at one moment. Fields as in wire::Device.
struct Reading {
  uint32_t index = 0;
  std::optional<uint32_t> parent;  // a slice: its GPU's index
  std::string uuid;                // empty: it cannot be asked
  std::string name;
  uint64_t known = 0;
  uint64_t utilization_percent = 0;
  uint64_t memory_used_bytes = 0;
  uint64_t memory_total_bytes = 0;
  uint64_t temperature_celsius = 0;
  uint64_t power_mw = 0;
  wire::DeviceHealth health = wire::DeviceHealth::kGood;
  std::string message;
};

// There is none on this host, or none that runs; an ordinary thing.
struct NoDriver {
  std::string why;
};

struct NvmlApi;

class Nvml {
 public:
  // `library`: a file, or a name that the dynamic linker finds. An Error: a driver is there, and is
  // not in order.
  static std::variant<Nvml, NoDriver, Error> open(const std::string& library);
  Nvml(Nvml&&) noexcept;
  Nvml& operator=(Nvml&&) = delete;
  ~Nvml();

  // Every GPU that this process may see, each followed by its slices. An Error: the driver answers
  // for none of them.
  Result<std::vector<Reading>> read();

  // Lets go of all GPUs, so that one that is lost can be reset; and takes hold of those that are
  // there then. REQUIRES: acquire() is the next call after release(), and gave Ok before read().
  void release();
  Status acquire();

 private:
  explicit Nvml(std::unique_ptr<NvmlApi> api);
  void read_gpu(uint32_t index, std::vector<Reading>& readings);
  void read_slices(void* gpu, const Reading& parent, std::vector<Reading>& readings);
  void read_name(void* device, Reading& reading);
  void read_figures(void* device, Reading& reading);
  void read_memory_errors(void* device, bool divided, Reading& reading);
  void judge(int result, Reading& reading);
  std::string text_of(int result) const;

  std::unique_ptr<NvmlApi> api_;
};

}  // namespace penstock::nvml
