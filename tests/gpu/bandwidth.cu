#include "tests/gpu/bandwidth.h"

#include <algorithm>
#include <chrono>

#include "worker/engines/llama/cuda/runtime.h"

namespace penstock::llama::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void read_all(const uint4* from, int64_t count, unsigned* out) {
  constexpr int kAhead = 8;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  unsigned sum = 0;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; at < count;
       at += kAhead * stride) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (at + i * stride < count) {
        const uint4 v = __ldcs(from + at + i * stride);
        sum += v.x ^ v.y ^ v.z ^ v.w;
      }
    }
  }
  if (sum == 0x12345678U) {  // so that the reads are wanted
    *out = sum;
  }
}

}  // namespace

Result<double> read_bandwidth() {
  constexpr int64_t kBytes = int64_t{4} << 30;
  auto memory = allocate_on_device(kBytes + 256);
  auto stream = make_stream(true);
  if (!memory || !stream) {
    return memory ? stream.error() : memory.error();
  }
  double best = 0;
  for (int round = 0; round < 8; ++round) {
    const auto begun = std::chrono::steady_clock::now();
    read_all<<<132 * 16, kThreads, 0, stream->get()>>>(
        reinterpret_cast<const uint4*>(memory->get()), kBytes / 16,
        reinterpret_cast<unsigned*>(memory->get() + kBytes));
    const Status done = wait(stream->get());
    if (!done) {
      return done.error();
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    best = std::max(best, kBytes / took.count());
  }
  return best;
}

}  // namespace penstock::llama::cuda
