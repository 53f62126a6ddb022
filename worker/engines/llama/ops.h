// The operations a Llama-family model is made of, one virtual function each, and who can carry them
// out.
//
// A Backend owns a device's memory and runs the operations in the order they are called. Two are
// here: reference_backend(), plain loops that say what each operation means, and cpu_backend(), the
// fast one, which tests hold against it. A GPU backend is a third: its memory is not readable by
// the host, its calls may return before the work is done, and finish() waits and tells of errors.
//
// Activations are F32. `tokens` is the number of rows in a step: all tokens of all sequences being
// advanced, whichever sequence they belong to. Every row's result depends on that row alone (and on
// the cache, for attention), to the last bit: a job's text must not depend on who shares its batch.
//
// Sources: Touvron et al., "LLaMA" (2023); Zhang and Sennrich, "Root Mean Square Layer
// Normalization" (2019); Su et al., "RoFormer" (2021), in the half-split form of Hugging Face's
// modeling_llama; Shazeer, "GLU Variants" (2020); Ainslie et al., "GQA" (2023); Kwon et al.,
// "PagedAttention" (2023); Milakov and Gimelshein, "Online normalizer calculation for softmax"
// (2018).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "shared/base/result.h"
#include "worker/engines/llama/tensor.h"

namespace penstock::llama {

// Memory of one backend, freed with it. Move-only.
class Buffer {
 public:
  using Free = void (*)(std::byte* data, int64_t bytes);
  Buffer() = default;
  Buffer(std::byte* data, int64_t bytes, Free free) : data_(data), bytes_(bytes), free_(free) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) {
      free_(data_, bytes_);
    }
  }

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(free_, other.free_);
  }

  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  Free free_ = nullptr;
};

// How attention's heads lie side by side in a row: query row = heads * head_dim, key and value rows
// = kv_heads * head_dim. Query head h reads key-value head h / (heads / kv_heads).
struct HeadShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t head_dim = 0;  // even
};

// Where each row of a step stands. Host memory; copied by the callee if it needs it for longer than
// the call.
struct Placement {
  std::span<const int32_t> positions;  // [tokens] the token's place in its sequence, from 0
  std::span<const int32_t> sequences;  // [tokens] which row of block_tables is its sequence's
  std::span<const int32_t>
      block_tables;  // [sequences, blocks_per_sequence] cache block of tokens 16*i .. 16*i+15
  int64_t blocks_per_sequence = 0;
};

// One layer's keys and values, in blocks of 16 tokens. Keys lie across (the 16 tokens of one
// component side by side) so that one vector load serves 16 scores; values lie along.
struct KvLayer {
  Tensor keys;    // [blocks * kv_heads * head_dim, 16]
  Tensor values;  // [blocks * kv_heads * 16, head_dim]
};

class Backend {
 public:
  virtual ~Backend() = default;

  // What runs here: "cpu avx512", "reference" ...
  virtual const char* name() const = 0;

  // Memory for activations and the cache. Untouched pages cost nothing on the CPU.
  virtual Result<Buffer> allocate(int64_t bytes) = 0;
  // Where this backend wants a weight that now lies in host memory: the same place on a CPU (the
  // mapped file itself), a copy on a GPU. The copy lives as long as the backend; the host data
  // must, too.
  virtual Result<ConstTensor> place(ConstTensor host) = 0;
  // Copies F32 data to the host / from the host.
  virtual Status read(ConstTensor from, std::span<float> to) = 0;
  virtual Status write(std::span<const float> from, Tensor to) = 0;
  // Waits for everything asked for so far; an error is final for the backend.
  virtual Status finish() = 0;

  // out[t, :] = table[rows[t], :]. REQUIRES: 0 <= rows[t] < table.rows.
  virtual void embed(Tensor out, ConstTensor table, std::span<const int32_t> rows) = 0;

  // out[t, :] = x[t, :] / sqrt(mean(x[t, :]^2) + epsilon) * weight. out may be x.
  virtual void rms_norm(Tensor out, ConstTensor x, ConstTensor weight, float epsilon) = 0;

  // out[tokens, rows] = x[tokens, cols] * weight[rows, cols]^T (+ bias[1, rows] unless empty).
  virtual void matmul(Tensor out, ConstTensor x, ConstTensor weight, ConstTensor bias) = 0;

  // Rotates each head's halves in place: (a, b) -> (a cos - b sin, b cos + a sin).
  // x [tokens, any number of heads * head_dim]; turns [tokens, head_dim]: cosines, then sines
  // (rope.h).
  virtual void rope(Tensor x, ConstTensor turns, int64_t head_dim) = 0;

  // Puts each row's key and value [tokens, kv_heads * head_dim] where placement says.
  virtual void store_kv(KvLayer cache, ConstTensor key, ConstTensor value,
                        const Placement& placement, const HeadShape& shape) = 0;

  // out[t, head] = softmax(query . keys / sqrt(head_dim)) * values over positions 0 .. positions[t]
  // of the row's sequence. REQUIRES: all of them are stored, those of this step too.
  virtual void attention(Tensor out, ConstTensor query, KvLayer cache, const Placement& placement,
                         const HeadShape& shape) = 0;

  // gate = gate / (1 + exp(-gate)) * up.
  virtual void swiglu(Tensor gate, ConstTensor up) = 0;

  // x += y.
  virtual void add(Tensor x, ConstTensor y) = 0;
};

// Plain scalar loops, single thread: what the others must equal.
std::unique_ptr<Backend> reference_backend();

// Which vector instructions the fast CPU backend uses.
enum class CpuLevel { kBaseline, kAvx2, kAvx512 };

// The best this machine can run.
CpuLevel best_cpu_level();

// REQUIRES: level <= best_cpu_level(). `threads` counts the caller; 1 starts none. Small operations
// stay on the caller.
std::unique_ptr<Backend> cpu_backend(int threads, CpuLevel level = best_cpu_level());

}  // namespace penstock::llama
