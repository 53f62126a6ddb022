// Embedding, RMSNorm with the residual's sum, RoPE with the cache's store, SwiGLU: one block a row,
// bound by memory, which is read and written along the row.
#include "worker/engines/llama/cuda/device_code.cuh"

namespace penstock::llama::cuda {
namespace {

constexpr int kThreads = 256;

template <typename W>
__global__ void embed_rows(float* out, const W* table, const int32_t* tokens, int64_t width) {
  const W* from = table + tokens[blockIdx.x] * width;
  float* to = out + blockIdx.x * width;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    to[i] = widen(from[i]);
  }
}

__global__ void add_norm_rows(AddNorm args) {
  __shared__ float room[kThreads / kWarp];
  const int64_t row = args.picked != nullptr ? args.picked[blockIdx.x] : blockIdx.x;
  float* hidden = args.hidden + row * args.width;
  const float* delta = args.delta != nullptr ? args.delta + row * args.width : nullptr;
  const auto sum_at = [&](int64_t i) {
    float v = hidden[i];
    if (delta != nullptr) {
      v += args.delta_bias != nullptr ? delta[i] + args.delta_bias[i] : delta[i];
    }
    return v;
  };
  float squares = 0;
  for (int64_t i = threadIdx.x; i < args.width; i += kThreads) {
    const float v = sum_at(i);
    squares += v * v;
  }
  const float mean = block_sum(squares, room) / static_cast<float>(args.width);
  const float scale = 1.0F / sqrtf(mean + args.epsilon);
  for (int64_t i = threadIdx.x; i < args.width; i += kThreads) {
    const float v = sum_at(i);  // each thread reads again only what it alone writes
    put(args.out, blockIdx.x * args.width + i, v * scale * args.weight[i]);
    if (args.picked == nullptr && delta != nullptr) {
      hidden[i] = v;
    }
  }
}

// Where component 0 of a token's key or value of `head` lies in the cache.
__device__ inline int64_t cache_at(const RopeAndStore& args, int64_t row, int64_t head) {
  const int32_t position = args.batch.positions[row];
  const int64_t block = args.batch.blocks[args.batch.tables[row] + position / kBlockTokens];
  return ((block * args.shape.kv_heads + head) * kBlockTokens + position % kBlockTokens) *
         args.shape.head_dim;
}

// Pair `pair` of the heads of query and then key: turned, and a key's stored.
template <typename K>
__device__ inline void turn(const RopeAndStore& args, float* row_at, int64_t row, int64_t pair) {
  const int64_t half = args.shape.head_dim / 2;
  const int64_t head = pair / half;
  const int64_t i = pair % half;
  const int64_t first = head * args.shape.head_dim + i;
  float a = row_at[first];
  float b = row_at[first + half];
  if (args.bias != nullptr) {
    a += args.bias[first];
    b += args.bias[first + half];
  }
  const float angle = static_cast<float>(args.batch.positions[row]) * args.frequencies[i];
  const float cosine = cosf(angle);
  const float sine = sinf(angle);
  const float turned_a = a * cosine - b * sine;
  const float turned_b = b * cosine + a * sine;
  if (head < args.shape.heads) {
    row_at[first] = turned_a;
    row_at[first + half] = turned_b;
    return;
  }
  K* key = static_cast<K*>(args.cache.keys) + cache_at(args, row, head - args.shape.heads);
  key[i] = rounded<K>(turned_a);
  key[i + half] = rounded<K>(turned_b);
}

template <typename K>
__global__ void rope_and_store_rows(RopeAndStore args) {
  const int64_t row = blockIdx.x;
  if (args.batch.positions[row] < 0) {
    return;
  }
  const HeadShape& shape = args.shape;
  const int64_t turned = (shape.heads + shape.kv_heads) * shape.head_dim;
  const int64_t values = shape.kv_heads * shape.head_dim;
  float* row_at = args.qkv + row * (turned + values);
  for (int64_t pair = threadIdx.x; pair < turned / 2; pair += kThreads) {
    turn<K>(args, row_at, row, pair);
  }
  for (int64_t i = threadIdx.x; i < values; i += kThreads) {
    float v = row_at[turned + i];
    if (args.bias != nullptr) {
      v += args.bias[turned + i];
    }
    K* value = static_cast<K*>(args.cache.values) + cache_at(args, row, i / shape.head_dim);
    value[i % shape.head_dim] = rounded<K>(v);
  }
}

__global__ void swiglu_rows(Activation out, const float* gate_up, const float* bias,
                            int64_t width) {
  const int64_t row = blockIdx.x;
  const float* gate = gate_up + row * 2 * width;
  const float* up = gate + width;
  for (int64_t i = blockIdx.y * kThreads + threadIdx.x; i < width; i += gridDim.y * kThreads) {
    const float g = bias != nullptr ? gate[i] + bias[i] : gate[i];
    const float u = bias != nullptr ? up[i] + bias[width + i] : up[i];
    put(out, row * width + i, g / (1.0F + expf(-g)) * u);
  }
}

}  // namespace

void embed(CUstream_st* stream, float* out, const Matrix& table, const int32_t* tokens,
           int64_t rows) {
  const dim3 grid(static_cast<unsigned>(rows));
  visit(table.dtype, [&]<typename W>(W) {
    PENSTOCK_LAUNCH(embed_rows<W>, grid, kThreads, 0, stream, out,
                    static_cast<const W*>(table.data), tokens, table.cols);
  });
}

void add_norm(CUstream_st* stream, const AddNorm& args, int64_t rows) {
  PENSTOCK_LAUNCH(add_norm_rows, dim3(static_cast<unsigned>(rows)), kThreads, 0, stream, args);
}

void rope_and_store(CUstream_st* stream, const RopeAndStore& args, int64_t rows) {
  const dim3 grid(static_cast<unsigned>(rows));
  visit(args.cache.dtype, [&]<typename K>(K) {
    PENSTOCK_LAUNCH(rope_and_store_rows<K>, grid, kThreads, 0, stream, args);
  });
}

void swiglu(CUstream_st* stream, const Activation& out, const float* gate_up, const float* bias,
            int64_t rows, int64_t width) {
  // A row of a large model is long enough for several blocks; a step of one row has no other work.
  const int64_t pieces = (width + kThreads * 4 - 1) / (kThreads * 4);
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(pieces));
  PENSTOCK_LAUNCH(swiglu_rows, grid, kThreads, 0, stream, out, gate_up, bias, width);
}

#if PENSTOCK_CUDA_FAULTS
namespace {
__global__ void write_nowhere(int* where) { *where = 1; }
}  // namespace

void illegal_access(CUstream_st* stream) {
  PENSTOCK_LAUNCH(write_nowhere, dim3(1), 1, 0, stream, reinterpret_cast<int*>(16));
}
#endif

}  // namespace penstock::llama::cuda
