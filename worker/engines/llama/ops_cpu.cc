#include <algorithm>
#include <cstring>

#include "worker/engines/llama/host_memory.h"
#include "worker/engines/llama/kernels.h"
#include "worker/engines/llama/ops.h"
#include "worker/engines/llama/thread_pool.h"

namespace penstock::llama {
namespace {

// Below this many multiply-adds per thread waking another costs more than it saves (about 10 us of
// one core's work).
constexpr int64_t kWorthAThread = 256 << 10;
// Pieces per thread: enough that a thread that was held up elsewhere does not hold up all.
constexpr int64_t kPiecesPerThread = 4;
constexpr int64_t kRowsApiece = 24;  // multiple of every tile's rows (kernels_body.h)

const Kernels& kernels_of(CpuLevel level) {
#if defined(__x86_64__)
  if (level == CpuLevel::kAvx512) {
    return avx512_kernels();
  }
  if (level == CpuLevel::kAvx2) {
    return avx2_kernels();
  }
#endif
  static_cast<void>(level);
  return baseline_kernels();
}

class CpuBackend final : public HostMemoryBackend {
 public:
  CpuBackend(int threads, const Kernels& kernels) : kernels_(kernels), pool_(threads) {}

  const char* name() const override { return kernels_.name; }

  void embed(Tensor out, ConstTensor table, std::span<const int32_t> rows) override {
    for (int64_t t = 0; t < out.rows; ++t) {
      float* to = out.f32() + t * out.cols;
      if (table.dtype == DType::kF32) {
        std::memcpy(to, table.f32() + rows[t] * table.cols, table.cols * sizeof(float));
        continue;
      }
      for (int64_t i = 0; i < table.cols; ++i) {
        to[i] = table.at(rows[t], i);
      }
    }
  }

  void rms_norm(Tensor out, ConstTensor x, ConstTensor weight, float epsilon) override {
    const auto row = kernels_.rms_norm[static_cast<int>(weight.dtype)];
    for (int64_t t = 0; t < x.rows; ++t) {
      row(out.f32() + t * x.cols, x.f32() + t * x.cols, weight.data, x.cols, epsilon);
    }
  }

  void matmul(Tensor out, ConstTensor x, ConstTensor weight, ConstTensor bias) override {
    const auto rows = kernels_.matmul[static_cast<int>(weight.dtype)];
    const MatmulArgs args{out.f32(), x.f32(), weight.data, x.rows, x.cols, weight.rows};
    share(weight.rows, x.rows * x.cols, kRowsApiece, [&](int64_t begin, int64_t end) {
      rows(args, begin, end);
      if (!bias.empty()) {
        add_bias(out, bias, begin, end);
      }
    });
  }

  void rope(Tensor x, ConstTensor turns, int64_t head_dim) override {
    const int64_t half = head_dim / 2;
    for (int64_t t = 0; t < x.rows; ++t) {
      const float* cosines = turns.f32() + t * head_dim;
      const float* sines = cosines + half;
      for (int64_t at = 0; at + head_dim <= x.cols; at += head_dim) {
        float* a = x.f32() + t * x.cols + at;
        float* b = a + half;
        for (int64_t i = 0; i < half; ++i) {
          const float turned = a[i] * cosines[i] - b[i] * sines[i];
          b[i] = b[i] * cosines[i] + a[i] * sines[i];
          a[i] = turned;
        }
      }
    }
  }

  void store_kv(KvLayer cache, ConstTensor key, ConstTensor value, const Placement& placement,
                const HeadShape& shape) override {
    const int64_t dim = shape.head_dim;
    for (int64_t t = 0; t < key.rows; ++t) {
      const int64_t position = placement.positions[t];
      const int64_t slot = position % kBlockTokens;
      const int32_t block = blocks_of(placement, t)[position / kBlockTokens];
      for (int64_t head = 0; head < shape.kv_heads; ++head) {
        const int64_t at = (block * shape.kv_heads + head) * dim * kBlockTokens;
        const int64_t from = t * key.cols + head * dim;
        float* keys = cache.keys.f32() + at + slot;
        for (int64_t d = 0; d < dim; ++d) {
          keys[d * kBlockTokens] = key.f32()[from + d];
        }
        std::memcpy(cache.values.f32() + at + slot * dim, value.f32() + from, dim * sizeof(float));
      }
    }
  }

  void attention(Tensor out, ConstTensor query, KvLayer cache, const Placement& placement,
                 const HeadShape& shape) override {
    int64_t positions = 0;
    for (const int32_t position : placement.positions) {
      positions += position + 1;
    }
    const int64_t tasks = query.rows * shape.kv_heads;
    share(tasks, 2 * positions * shape.heads * shape.head_dim / tasks, 1,
          [&](int64_t begin, int64_t end) {
            for (int64_t task = begin; task < end; ++task) {
              attend(out, query, cache, placement, shape, task);
            }
          });
  }

  void swiglu(Tensor gate, ConstTensor up) override {
    constexpr int64_t kApiece = 4096;
    share(up.count(), 16, kApiece, [&](int64_t begin, int64_t end) {
      kernels_.swiglu(gate.f32() + begin, up.f32() + begin, end - begin);
    });
  }

  void add(Tensor x, ConstTensor y) override {
    float* to = x.f32();
    const float* from = y.f32();
    for (int64_t i = 0; i < y.count(); ++i) {
      to[i] += from[i];
    }
  }

 private:
  static const int32_t* blocks_of(const Placement& placement, int64_t row) {
    return placement.block_tables.data() + placement.sequences[row] * placement.blocks_per_sequence;
  }

  static void add_bias(Tensor out, ConstTensor bias, int64_t begin, int64_t end) {
    for (int64_t t = 0; t < out.rows; ++t) {
      for (int64_t r = begin; r < end; ++r) {
        out.f32()[t * out.cols + r] += bias.at(0, r);
      }
    }
  }

  // The query heads of one row that share one key-value head.
  void attend(Tensor out, ConstTensor query, KvLayer cache, const Placement& placement,
              const HeadShape& shape, int64_t task) {
    const int64_t row = task / shape.kv_heads;
    const int64_t kv_head = task % shape.kv_heads;
    const int64_t group = shape.heads / shape.kv_heads;
    for (int64_t g = 0; g < group; g += kMaxGroup) {
      const int64_t at = row * query.cols + (kv_head * group + g) * shape.head_dim;
      kernels_.attend({out.f32() + at, query.f32() + at, cache.keys.f32(), cache.values.f32(),
                       blocks_of(placement, row), placement.positions[row] + 1, shape.kv_heads,
                       kv_head, shape.head_dim, std::min(kMaxGroup, group - g)});
    }
  }

  // Runs body over [0, count), each index worth `cost` multiply-adds, on as many threads as that is
  // worth. Pieces are multiples of `unit`.
  template <typename Body>
  void share(int64_t count, int64_t cost, int64_t unit, const Body& body) {
    if (pool_.threads() == 1 || count * cost < 2 * kWorthAThread) {
      body(0, count);
      return;
    }
    const int64_t pieces =
        std::min(pool_.threads() * kPiecesPerThread, count * cost / kWorthAThread);
    const int64_t piece = (count + pieces - 1) / pieces;
    pool_.run(count, (piece + unit - 1) / unit * unit, body);
  }

  const Kernels& kernels_;
  ThreadPool pool_;
};

}  // namespace

CpuLevel best_cpu_level() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return CpuLevel::kAvx512;
  }
  // F16C came with the processors before AVX2: one that has AVX2 and FMA has it.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return CpuLevel::kAvx2;
  }
#endif
  return CpuLevel::kBaseline;
}

std::unique_ptr<Backend> cpu_backend(int threads, CpuLevel level) {
  return std::make_unique<CpuBackend>(threads, kernels_of(level));
}

}  // namespace penstock::llama
