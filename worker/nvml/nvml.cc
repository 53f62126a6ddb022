#include "worker/nvml/nvml.h"

#include <dlfcn.h>
#include <unistd.h>

#include <string_view>

namespace penstock::nvml {

using wire::DeviceHealth;

namespace {

// nvmlReturn_t, as far as it is told apart here.
enum Return : int {
  kSuccess = 0,
  kNoPermission = 4,
  kNotFound = 6,
  kDriverNotLoaded = 9,
  kLibraryNotFound = 12,
  kFunctionNotFound = 13,
  kGpuIsLost = 15,
  kResetRequired = 16,
  kGpuNotFound = 28,
};

constexpr unsigned kTemperatureOfGpu = 0;  // nvmlTemperatureSensors_t: NVML_TEMPERATURE_GPU
constexpr unsigned kUncorrected = 1;       // nvmlMemoryErrorType_t
constexpr unsigned kVolatile = 0;          // nvmlEccCounterType_t: since the driver was loaded
constexpr unsigned kMigEnabled = 1;        // NVML_DEVICE_MIG_ENABLE
constexpr unsigned kTextBytes = 96;        // NVML_DEVICE_UUID_V2_BUFFER_SIZE, ..._NAME_V2_...
constexpr unsigned kMostGpus = 64;
constexpr unsigned kMostSlices = 16;  // of one GPU; 7 so far

struct Memory {  // nvmlMemory_t
  unsigned long long total, free, used;
};
struct Utilization {  // nvmlUtilization_t
  unsigned gpu, memory;
};

// A function that this driver does not have answers so, as NVML would.
template <typename... Parameters, typename... Arguments>
int call(int (*function)(Parameters...), Arguments... arguments) {
  return function == nullptr ? int{kFunctionNotFound} : function(arguments...);
}

}  // namespace

// The functions by the names they have in the library; handles (nvmlDevice_t) are pointers.
struct NvmlApi {
  void* library = nullptr;
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  const char* (*error_string)(int) = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*handle)(unsigned, void**) = nullptr;
  int (*uuid)(void*, char*, unsigned) = nullptr;
  int (*name)(void*, char*, unsigned) = nullptr;
  int (*utilization)(void*, Utilization*) = nullptr;
  int (*memory)(void*, Memory*) = nullptr;
  int (*temperature)(void*, unsigned, unsigned*) = nullptr;
  int (*power)(void*, unsigned*) = nullptr;
  int (*ecc_errors)(void*, unsigned, unsigned, unsigned long long*) = nullptr;
  int (*remapped_rows)(void*, unsigned*, unsigned*, unsigned*, unsigned*) = nullptr;
  int (*mig_mode)(void*, unsigned*, unsigned*) = nullptr;
  int (*max_slices)(void*, unsigned*) = nullptr;
  int (*slice)(void*, unsigned, void**) = nullptr;

  ~NvmlApi() {
    if (library != nullptr) {
      ::dlclose(library);
    }
  }

  template <typename Function>
  bool find(const char* symbol, Function& function) {
    function = reinterpret_cast<Function>(::dlsym(library, symbol));
    return function != nullptr;
  }
  // The first of those that every driver has and this one lacks, or nullptr.
  const char* find_all() {
    find("nvmlDeviceGetUtilizationRates", utilization);
    find("nvmlDeviceGetTemperature", temperature);
    find("nvmlDeviceGetPowerUsage", power);
    find("nvmlDeviceGetTotalEccErrors", ecc_errors);
    find("nvmlDeviceGetRemappedRows", remapped_rows);
    find("nvmlDeviceGetMigMode", mig_mode);
    find("nvmlDeviceGetMaxMigDeviceCount", max_slices);
    find("nvmlDeviceGetMigDeviceHandleByIndex", slice);
    return !find("nvmlInit_v2", init)                       ? "nvmlInit_v2"
           : !find("nvmlShutdown", shutdown)                ? "nvmlShutdown"
           : !find("nvmlErrorString", error_string)         ? "nvmlErrorString"
           : !find("nvmlDeviceGetCount_v2", count)          ? "nvmlDeviceGetCount_v2"
           : !find("nvmlDeviceGetHandleByIndex_v2", handle) ? "nvmlDeviceGetHandleByIndex_v2"
           : !find("nvmlDeviceGetUUID", uuid)               ? "nvmlDeviceGetUUID"
           : !find("nvmlDeviceGetName", name)               ? "nvmlDeviceGetName"
           : !find("nvmlDeviceGetMemoryInfo", memory)       ? "nvmlDeviceGetMemoryInfo"
                                                            : nullptr;
  }
};

Nvml::Nvml(std::unique_ptr<NvmlApi> api) : api_(std::move(api)) {}
Nvml::Nvml(Nvml&&) noexcept = default;
Nvml::~Nvml() {
  if (api_ != nullptr) {
    release();
  }
}

std::variant<Nvml, NoDriver, Error> Nvml::open(const std::string& library) {
  auto api = std::make_unique<NvmlApi>();
  api->library = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (api->library == nullptr) {
    const std::string why = ::dlerror();
    if (why.ends_with("No such file or directory")) {
      return NoDriver{"no NVIDIA driver: " + library + " is not there"};
    }
    return Error{"the NVIDIA driver's library cannot be loaded: " + why};
  }
  if (const char* const missing = api->find_all(); missing != nullptr) {
    return Error{library + " is no NVML, or too old: it has no " + missing +
                 "; a driver of 2013 or later is needed"};
  }
  if (const int result = api->init(); result != kSuccess) {
    const std::string why = api->error_string(result);
    if (result == kDriverNotLoaded || result == kLibraryNotFound || result == kNotFound ||
        result == kGpuNotFound) {
      return NoDriver{"no NVIDIA driver, or no GPU: " + why};
    }
    return Error{"the NVIDIA driver does not start: " + why};
  }
  return Nvml(std::move(api));
}

void Nvml::release() { api_->shutdown(); }

Status Nvml::acquire() {
  if (const int result = api_->init(); result != kSuccess) {
    return Error{"the NVIDIA driver does not start: " + text_of(result)};
  }
  return Ok{};
}

std::string Nvml::text_of(int result) const {
  const char* const text = api_->error_string(result);
  return text == nullptr ? "NVML error " + std::to_string(result) : text;
}

Result<std::vector<Reading>> Nvml::read() {
  unsigned count = 0;
  if (const int result = api_->count(&count); result != kSuccess) {
    return Error{"the NVIDIA driver does not answer: " + text_of(result)};
  }
  std::vector<Reading> readings;
  for (unsigned index = 0; index < count && index < kMostGpus; ++index) {
    read_gpu(index, readings);
  }
  return readings;
}

void Nvml::read_gpu(uint32_t index, std::vector<Reading>& readings) {
  Reading gpu;
  gpu.index = index;
  void* handle = nullptr;
  const int result = api_->handle(index, &handle);
  if (result == kNoPermission) {  // it was not given to this container or user
    return;
  }
  if (result != kSuccess) {
    judge(result, gpu);
    if (gpu.health == DeviceHealth::kGood) {
      gpu.health = DeviceHealth::kUnreadable;
      gpu.message = text_of(result);
    }
    readings.push_back(std::move(gpu));
    return;
  }
  read_name(handle, gpu);
  read_figures(handle, gpu);
  unsigned mode = 0;
  unsigned pending = 0;
  const bool divided =
      call(api_->mig_mode, handle, &mode, &pending) == kSuccess && mode == kMigEnabled;
  read_memory_errors(handle, divided, gpu);
  readings.push_back(gpu);
  if (divided) {
    read_slices(handle, gpu, readings);
  }
}

// A slice is as good as its GPU.
void Nvml::read_slices(void* gpu, const Reading& parent, std::vector<Reading>& readings) {
  unsigned most = 0;
  if (call(api_->max_slices, gpu, &most) != kSuccess) {
    return;
  }
  for (unsigned index = 0; index < most && index < kMostSlices; ++index) {
    void* handle = nullptr;
    if (call(api_->slice, gpu, index, &handle) != kSuccess) {  // no slice in this place
      continue;
    }
    Reading slice;
    slice.index = index;
    slice.parent = parent.index;
    slice.health = parent.health;
    slice.message = parent.message;
    read_name(handle, slice);
    read_figures(handle, slice);
    readings.push_back(std::move(slice));
  }
}

void Nvml::read_name(void* device, Reading& reading) {
  char text[kTextBytes] = {};
  if (const int result = api_->uuid(device, text, sizeof text - 1); result == kSuccess) {
    reading.uuid = text;
  } else {
    judge(result, reading);
  }
  if (const int result = api_->name(device, text, sizeof text - 1); result == kSuccess) {
    reading.name = text;
  } else {
    judge(result, reading);
  }
}

// Not every device has every figure: of slices, most are their GPU's.
void Nvml::read_figures(void* device, Reading& reading) {
  const auto read = [&](wire::DeviceFigure figure, int result) {
    judge(result, reading);
    reading.known |= result == kSuccess ? uint64_t{figure} : 0;
    return result == kSuccess;
  };
  Memory memory{};
  if (const int result = api_->memory(device, &memory); read(wire::kMemoryKnown, result)) {
    reading.memory_used_bytes = memory.used;
    reading.memory_total_bytes = memory.total;
  }
  Utilization utilization{};
  if (read(wire::kUtilizationKnown, call(api_->utilization, device, &utilization))) {
    reading.utilization_percent = utilization.gpu;
  }
  unsigned celsius = 0;
  if (read(wire::kTemperatureKnown, call(api_->temperature, device, kTemperatureOfGpu, &celsius))) {
    reading.temperature_celsius = celsius;
  }
  unsigned mw = 0;
  if (read(wire::kPowerKnown, call(api_->power, device, &mw))) {
    reading.power_mw = mw;
  }
}

// From Ampere on, an error that ECC cannot correct ends the work it hit, and its row is replaced
// with the next reset: only when that fails is the memory broken. Before, any such error means that
// nothing on this GPU can be relied on until it is reset. One that is divided is of the former, and
// does not tell of its rows.
void Nvml::read_memory_errors(void* device, bool divided, Reading& reading) {
  unsigned corrected = 0;
  unsigned uncorrected = 0;
  unsigned pending = 0;
  unsigned failed = 0;
  const int rows = call(api_->remapped_rows, device, &corrected, &uncorrected, &pending, &failed);
  judge(rows, reading);
  unsigned long long errors = 0;
  if (reading.health != DeviceHealth::kGood) {
    return;
  }
  if (rows == kSuccess && failed != 0) {
    reading.health = DeviceHealth::kMemory;
    reading.message = "rows of its memory are broken and could not be replaced; replace the GPU";
  } else if (rows == kSuccess && pending != 0) {
    reading.message = "rows of its memory are to be replaced: reset it when it is idle";
  } else if (rows != kSuccess && !divided &&
             call(api_->ecc_errors, device, kUncorrected, kVolatile, &errors) == kSuccess &&
             errors > 0) {
    reading.health = DeviceHealth::kMemory;
    reading.message = std::to_string(errors) + " uncorrectable errors in its memory; reset it";
  }
}

// What only this device's state explains. A figure that it does not have is no fault.
void Nvml::judge(int result, Reading& reading) {
  if (result == kGpuIsLost || result == kResetRequired) {
    reading.health = result == kGpuIsLost ? DeviceHealth::kLost : DeviceHealth::kResetRequired;
    reading.message = text_of(result);
  }
}

}  // namespace penstock::nvml
