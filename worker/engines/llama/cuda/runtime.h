// The few things the engine needs of the CUDA runtime, owned by their types and with errors as
// values that carry CUDA's own name for them. An error of ErrorKind::kBusy says that there was no
// memory: others may have it, and the device is not at fault.
//
// The runtime is linked statically and looks for the driver only when it is first asked: a program
// that holds this starts where no driver is, and is told so here.
//
// An error of a kernel comes out of the next call that waits, and then out of every other: the
// device's context is lost and with it the process (the programming guide calls such errors
// sticky).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "shared/base/result.h"

// CUDA's own handles, so that its headers are not needed here.
struct CUstream_st;
struct CUgraphExec_st;
struct CUevent_st;

namespace penstock::llama::cuda {

struct DeviceInfo {
  int number = 0;
  std::string name;
  int64_t processors = 0;  // streaming multiprocessors
  int64_t total_bytes = 0;
};

// Makes device `number` this thread's and starts its context; may take a second. An Error says what
// is not there: a driver, a new enough one, or a device of that number.
Result<DeviceInfo> use_device(int number);

Result<int64_t> free_bytes();

struct FreeOnDevice {
  void operator()(std::byte* data) const;
};
struct FreePinned {
  void operator()(std::byte* data) const;
};
struct DestroyStream {
  void operator()(CUstream_st* stream) const;
};
struct DestroyGraph {
  void operator()(CUgraphExec_st* graph) const;
};
using DeviceMemory = std::unique_ptr<std::byte, FreeOnDevice>;
using PinnedMemory = std::unique_ptr<std::byte, FreePinned>;  // the host's, for copies that overlap
using Stream = std::unique_ptr<CUstream_st, DestroyStream>;
struct DestroyEvent {
  void operator()(CUevent_st* event) const;
};
using Graph = std::unique_ptr<CUgraphExec_st, DestroyGraph>;
using Event = std::unique_ptr<CUevent_st, DestroyEvent>;

// REQUIRES of all below: use_device() succeeded on this thread.
Result<DeviceMemory> allocate_on_device(int64_t bytes);
Result<PinnedMemory> allocate_pinned(int64_t bytes);
// Not ordered with the default stream. Kernels of high priority go first when both have some ready.
Result<Stream> make_stream(bool high_priority);

// Copies from any host memory and waits; for loading.
Status load(std::byte* device, const void* host, int64_t bytes);

// In stream order; `host` is pinned and must stay as it is until the copy is done.
Status copy_to_device(CUstream_st* stream, std::byte* device, const std::byte* host, int64_t bytes);
Status copy_to_host(CUstream_st* stream, std::byte* host, const std::byte* device, int64_t bytes);

// Records what `work` asks of the stream instead of doing it.
Result<Graph> capture(CUstream_st* stream, const std::function<Status()>& work);
Status launch(CUstream_st* stream, CUgraphExec_st* graph);

// Whether the kernels asked for since the last call could be started.
Status launched();

// Waits for the stream alone, not for the device; awake, which takes a core.
Status wait(CUstream_st* stream);
// The same asleep, which takes a little longer. `event`: of make_event(), for no other stream.
Status wait_asleep(CUstream_st* stream, CUevent_st* event);
Result<Event> make_event();

}  // namespace penstock::llama::cuda
