#include "worker/engines/llama/cuda/runtime.h"

#include <cuda_runtime_api.h>

namespace penstock::llama::cuda {
namespace {

Error named(cudaError_t error, const std::string& what) {
  return Error{"CUDA " + what + ": " + cudaGetErrorName(error) + " (" +
                   std::to_string(static_cast<int>(error)) + "), " + cudaGetErrorString(error),
               error == cudaErrorMemoryAllocation ? ErrorKind::kBusy : ErrorKind::kRefused};
}

Status checked(cudaError_t error, const char* what) {
  return error == cudaSuccess ? Status(Ok{}) : Status(named(error, what));
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// The runtime says "insufficient driver" for none and for an old one alike.
Error no_driver(cudaError_t error) {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) {
    return Error{"there is no NVIDIA driver here (libcuda.so.1)"};
  }
  if (error == cudaErrorInsufficientDriver) {
    return Error{"the NVIDIA driver is for CUDA " + version_text(driver) + " and too old for " +
                 version_text(CUDART_VERSION) + ", which this worker was built with; update it"};
  }
  return named(error, "does not answer");
}

}  // namespace

Result<DeviceInfo> use_device(int number) {
  cudaGetLastError();  // not what an earlier try left
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    cudaGetLastError();  // not this thread's next call's
    return error == cudaErrorNoDevice ? Error{"the driver sees no CUDA device"} : no_driver(error);
  }
  if (number >= count) {
    return Error{"there is no CUDA device " + std::to_string(number) + ", the driver sees " +
                 std::to_string(count)};
  }
  cudaDeviceProp properties{};
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, number);
      error != cudaSuccess) {
    return named(error, "device " + std::to_string(number));
  }
  if (properties.major < 8) {
    return Error{std::string(properties.name) + " has compute capability " +
                 std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                 ", at least 8.0 is needed"};
  }
  if (const cudaError_t error = cudaSetDevice(number); error != cudaSuccess) {
    return named(error, "device " + std::to_string(number));
  }
  // cudaFree(nullptr) starts the context, so that a device that cannot is found out here.
  if (const cudaError_t error = cudaFree(nullptr); error != cudaSuccess) {
    return named(error, "device " + std::to_string(number));
  }
  return DeviceInfo{number, properties.name, properties.multiProcessorCount,
                    static_cast<int64_t>(properties.totalGlobalMem)};
}

Result<int64_t> free_bytes() {
  size_t free = 0;
  size_t total = 0;
  const Status got = checked(cudaMemGetInfo(&free, &total), "memory");
  return got ? Result<int64_t>(static_cast<int64_t>(free)) : got.error();
}

void FreeOnDevice::operator()(std::byte* data) const { cudaFree(data); }
void FreePinned::operator()(std::byte* data) const { cudaFreeHost(data); }
void DestroyStream::operator()(CUstream_st* stream) const { cudaStreamDestroy(stream); }
void DestroyGraph::operator()(CUgraphExec_st* graph) const { cudaGraphExecDestroy(graph); }
void DestroyEvent::operator()(CUevent_st* event) const { cudaEventDestroy(event); }

Result<DeviceMemory> allocate_on_device(int64_t bytes) {
  void* data = nullptr;
  if (const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes));
      error != cudaSuccess) {
    cudaGetLastError();  // out of memory is not sticky
    Error failed = named(error, "memory of " + std::to_string(bytes) + " bytes");
    failed.message += "; give the model less `memory`, or a device with more";
    return failed;
  }
  return DeviceMemory(static_cast<std::byte*>(data));
}

Result<PinnedMemory> allocate_pinned(int64_t bytes) {
  void* data = nullptr;
  if (const cudaError_t error = cudaMallocHost(&data, static_cast<size_t>(bytes));
      error != cudaSuccess) {
    cudaGetLastError();
    return named(error, "pinned memory of " + std::to_string(bytes) + " bytes");
  }
  return PinnedMemory(static_cast<std::byte*>(data));
}

Result<Stream> make_stream(bool high_priority) {
  int least = 0;
  int greatest = 0;
  cudaStream_t stream = nullptr;
  Status made = checked(cudaDeviceGetStreamPriorityRange(&least, &greatest), "stream");
  if (made) {
    made = checked(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                                high_priority ? greatest : least),
                   "stream");
  }
  return made ? Result<Stream>(Stream(stream)) : made.error();
}

Status load(std::byte* device, const void* host, int64_t bytes) {
  const Status copied =
      checked(cudaMemcpy(device, host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice),
              "copy of weights");
  // From ordinary memory the copy returns with the last bytes still on their way, and our streams
  // do not wait for this one.
  return copied ? checked(cudaStreamSynchronize(nullptr), "copy of weights") : copied;
}

Status copy_to_device(CUstream_st* stream, std::byte* device, const std::byte* host,
                      int64_t bytes) {
  return checked(
      cudaMemcpyAsync(device, host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream),
      "copy to the device");
}

Status copy_to_host(CUstream_st* stream, std::byte* host, const std::byte* device, int64_t bytes) {
  return checked(
      cudaMemcpyAsync(host, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream),
      "copy to the host");
}

Result<Graph> capture(CUstream_st* stream, const std::function<Status()>& work) {
  Status done = checked(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "graph");
  if (!done) {
    return done.error();
  }
  done = work();
  cudaGraph_t graph = nullptr;  // ended whatever came of the work
  const Status ended = checked(cudaStreamEndCapture(stream, &graph), "graph");
  cudaGraphExec_t ready = nullptr;
  if (done && ended) {
    done = checked(cudaGraphInstantiate(&ready, graph, 0), "graph");
  }
  if (graph != nullptr) {
    cudaGraphDestroy(graph);
  }
  Graph made(ready);
  if (done && ended) {  // else its first launch would do that, in somebody's step
    done = checked(cudaGraphUpload(made.get(), stream), "graph");
  }
  if (!done || !ended) {
    return done ? ended.error() : done.error();
  }
  return made;
}

Status launch(CUstream_st* stream, CUgraphExec_st* graph) {
  return checked(cudaGraphLaunch(graph, stream), "graph");
}

Status launched() { return checked(cudaGetLastError(), "kernel"); }

Status wait(CUstream_st* stream) { return checked(cudaStreamSynchronize(stream), "step"); }

Status wait_asleep(CUstream_st* stream, CUevent_st* event) {
  const Status recorded = checked(cudaEventRecord(event, stream), "step");
  return recorded ? checked(cudaEventSynchronize(event), "step") : recorded;
}

Result<Event> make_event() {
  cudaEvent_t event = nullptr;
  const Status made = checked(
      cudaEventCreateWithFlags(&event, cudaEventBlockingSync | cudaEventDisableTiming), "event");
  return made ? Result<Event>(Event(event)) : made.error();
}

}  // namespace penstock::llama::cuda
