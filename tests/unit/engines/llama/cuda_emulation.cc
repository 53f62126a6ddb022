#include "tests/unit/engines/llama/cuda_emulation.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include "worker/engines/llama/cuda/runtime.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

// ---- fibers ------------------------------------------------------------------------------------

#if defined(__x86_64__)
// Saves what a call must not change, swaps stacks, and returns on the other one. (swapcontext()
// makes a system call for the signal mask, a hundred times as slow.)
extern "C" void penstock_switch_stack(void** save, void* load);
asm(R"(
.text
.globl penstock_switch_stack
.type penstock_switch_stack, @function
penstock_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size penstock_switch_stack, .-penstock_switch_stack
)");
#endif

namespace penstock::llama::cuda {
namespace emulation {
namespace {

constexpr size_t kStackBytes = 64 << 10;
constexpr unsigned kWarp = 32;

void enter_fiber();

class Fiber {
 public:
  enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

  Fiber() : stack_(new std::byte[kStackBytes]) {}

  void begin() {
    state = State::kReady;
    parity = 0;
#if defined(__x86_64__)
    std::byte* top = stack_.get() + kStackBytes - 16;  // the entry finds it as after a call
    *reinterpret_cast<void (**)()>(top) = enter_fiber;
    top -= 6 * sizeof(void*);
    std::memset(top, 0, 6 * sizeof(void*));
    at_ = top;
#else
    getcontext(&at_);
    at_.uc_stack.ss_sp = stack_.get();
    at_.uc_stack.ss_size = kStackBytes;
    makecontext(&at_, enter_fiber, 0);
#endif
  }
#if defined(__x86_64__)
  void resume() { penstock_switch_stack(&caller_, at_); }
  void yield() { penstock_switch_stack(&at_, caller_); }
#else
  void resume() { swapcontext(&caller_, &at_); }
  void yield() { swapcontext(&at_, &caller_); }
#endif

  State state = State::kDone;
  int parity = 0;

 private:
  std::unique_ptr<std::byte[]> stack_;
#if defined(__x86_64__)
  void* at_ = nullptr;
  void* caller_ = nullptr;
#else
  ucontext_t at_, caller_;
#endif
};

struct Machine {
  bool answers = false;
  bool full = false;
  unsigned seed = 1;
  int broken = 0;
  bool refused = false;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<uint64_t> slots;  // [threads, 2]
  std::vector<std::byte> shared;
  Fiber* current = nullptr;
  const std::function<void()>* kernel = nullptr;
};
Machine machine;

void enter_fiber() {
  (*machine.kernel)();
  machine.current->state = Fiber::State::kDone;
  machine.current->yield();
}

// Lets all of [begin, end) go on if each waits in `state`. Those that have ended count as missing.
bool release(unsigned begin, unsigned end, Fiber::State state) {
  for (unsigned i = begin; i < end; ++i) {
    if (machine.fibers[i]->state != state) {
      return false;
    }
  }
  for (unsigned i = begin; i < end; ++i) {
    machine.fibers[i]->state = Fiber::State::kReady;
  }
  return true;
}

// Runs one warp until it has ended or waits for the block.
void run_warp(unsigned first, unsigned end, std::mt19937& random) {
  std::vector<unsigned> order(end - first);
  std::iota(order.begin(), order.end(), first);
  std::shuffle(order.begin(), order.end(), random);
  do {
    for (const unsigned i : order) {
      machine.current = machine.fibers[i].get();
      threadIdx.x = i;
      if (machine.current->state == Fiber::State::kReady) {
        machine.current->resume();
      }
    }
  } while (release(first, end, Fiber::State::kAtWarpBarrier));
}

// Warps run as far ahead of one another as barriers let them: who lacks one is found out.
void run_block(unsigned threads, std::mt19937& random) {
  std::vector<unsigned> warps((threads + kWarp - 1) / kWarp);
  std::iota(warps.begin(), warps.end(), 0);
  for (unsigned i = 0; i < threads; ++i) {
    machine.fibers[i]->begin();
  }
  do {
    std::shuffle(warps.begin(), warps.end(), random);
    for (const unsigned warp : warps) {
      run_warp(warp * kWarp, std::min((warp + 1) * kWarp, threads), random);
    }
  } while (release(0, threads, Fiber::State::kAtBlockBarrier));
  for (unsigned i = 0; i < threads; ++i) {
    if (machine.fibers[i]->state != Fiber::State::kDone) {
      ++machine.broken;
      return;
    }
  }
}

// CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; of shared memory
// what needs no attribute.
bool can_start(const dim3& grid, unsigned threads, size_t shared_bytes) {
  constexpr unsigned kMost = 65535;
  return grid.x > 0 && grid.x <= INT32_MAX && grid.y > 0 && grid.y <= kMost && grid.z > 0 &&
         grid.z <= kMost && threads > 0 && threads <= 1024 && shared_bytes <= (48 << 10);
}

class PlainLoops final : public CublasLt {
 public:
  const char* name() const override { return "plain loops"; }
  bool can(const Matrix& weight, int64_t) override { return weight.cols % 2 == 0; }

  Status multiply(CUstream_st*, float* out, const void* x, const Matrix& weight, int64_t rows,
                  bool add) override {
    const auto at = [&](const void* data, int64_t row, int64_t col) {
      return ConstTensor{static_cast<const std::byte*>(data), weight.dtype, 1, weight.cols}.at(row,
                                                                                               col);
    };
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < weight.rows; ++i) {
        double sum = add ? out[row * weight.rows + i] : 0;
        for (int64_t k = 0; k < weight.cols; ++k) {
          sum += static_cast<double>(at(x, row, k)) * at(weight.data, i, k);
        }
        out[row * weight.rows + i] = static_cast<float>(sum);
      }
    }
    return Ok{};
  }
};

}  // namespace

void answer(bool on) { machine.answers = on; }
void fill(bool on) { machine.full = on; }
void set_order(unsigned seed) { machine.seed = seed; }
int broken_barriers() { return std::exchange(machine.broken, 0); }
std::unique_ptr<CublasLt> library() { return std::make_unique<PlainLoops>(); }

void launch(dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()>& kernel) {
  if (!can_start(grid, threads, shared_bytes)) {
    machine.refused = true;
    return;
  }
  while (machine.fibers.size() < threads) {
    machine.fibers.push_back(std::make_unique<Fiber>());
  }
  machine.slots.resize(2 * machine.fibers.size());
  machine.kernel = &kernel;
  gridDim = grid;
  blockDim = dim3(threads);
  std::mt19937 random(machine.seed);
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        machine.shared = std::vector<std::byte>(shared_bytes, std::byte{0xFF});
        run_block(threads, random);
      }
    }
  }
}

void block_barrier() {
  machine.current->state = Fiber::State::kAtBlockBarrier;
  machine.current->yield();
}

// Two sets of slots by turns: nobody is a whole exchange ahead of another.
uint64_t exchange(uint64_t value, int from) {
  Fiber& self = *machine.current;
  const unsigned first = threadIdx.x / kWarp * kWarp;
  const int parity = self.parity;
  self.parity ^= 1;
  machine.slots[2 * threadIdx.x + parity] = value;
  self.state = Fiber::State::kAtWarpBarrier;
  self.yield();
  return machine.slots[2 * (first + from) + parity];
}

std::byte* dynamic_shared() { return machine.shared.data(); }

}  // namespace emulation

// ---- the runtime -------------------------------------------------------------------------------

Result<DeviceInfo> use_device(int number) {
  if (!emulation::machine.answers) {
    return Error{"there is no NVIDIA driver here (libcuda.so.1)"};
  }
  if (number > 0) {
    return Error{"there is no CUDA device " + std::to_string(number) + ", the driver sees 1"};
  }
  return DeviceInfo{0, "an emulated device", 4, int64_t{1} << 30};
}

Result<int64_t> free_bytes() { return int64_t{1} << 26; }

void FreeOnDevice::operator()(std::byte* data) const { std::free(data); }
void FreePinned::operator()(std::byte* data) const { std::free(data); }
void DestroyStream::operator()(CUstream_st*) const {}
void DestroyEvent::operator()(CUevent_st*) const {}

Result<DeviceMemory> allocate_on_device(int64_t bytes) {
  void* data = nullptr;
  if (emulation::machine.full || posix_memalign(&data, 256, static_cast<size_t>(bytes)) != 0) {
    return Error{"CUDA memory: cudaErrorMemoryAllocation (2), out of memory", ErrorKind::kBusy};
  }
  std::memset(data, 0xFF, static_cast<size_t>(bytes));
  return DeviceMemory(static_cast<std::byte*>(data));
}

Result<PinnedMemory> allocate_pinned(int64_t bytes) {
  auto memory = allocate_on_device(bytes);
  return memory ? Result<PinnedMemory>(PinnedMemory(memory->release())) : memory.error();
}

Result<Stream> make_stream(bool) {
  static char stream;
  return Stream(reinterpret_cast<CUstream_st*>(&stream));
}

Status load(std::byte* device, const void* host, int64_t bytes) {
  std::memcpy(device, host, bytes);
  return Ok{};
}

Status copy_to_device(CUstream_st*, std::byte* device, const std::byte* host, int64_t bytes) {
  std::memcpy(device, host, bytes);
  return Ok{};
}

Status copy_to_host(CUstream_st*, std::byte* host, const std::byte* device, int64_t bytes) {
  std::memcpy(host, device, bytes);
  return Ok{};
}

Status launched() {
  return std::exchange(emulation::machine.refused, false)
             ? Status(
                   Error{"CUDA kernel: cudaErrorInvalidConfiguration (9), invalid configuration"})
             : Status(Ok{});
}
Status wait(CUstream_st*) { return Ok{}; }
Status wait_asleep(CUstream_st*, CUevent_st* event) {
  return event != nullptr ? Status(Ok{}) : Status(Error{"there is no event"});
}
Result<Event> make_event() {
  static char event;
  return Event(reinterpret_cast<CUevent_st*>(&event));
}

Result<std::unique_ptr<CublasLt>> open_cublaslt() { return Error{"cuBLASLt was not found"}; }

}  // namespace penstock::llama::cuda

// A graph does what it recorded each time.
struct CUgraphExec_st {
  std::function<penstock::Status()> work;
};

namespace penstock::llama::cuda {

void DestroyGraph::operator()(CUgraphExec_st* graph) const { delete graph; }

Result<Graph> capture(CUstream_st*, const std::function<Status()>& work) {
  return Graph(new CUgraphExec_st{work});
}

Status launch(CUstream_st*, CUgraphExec_st* graph) { return graph->work(); }

}  // namespace penstock::llama::cuda
