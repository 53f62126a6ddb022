// Matrix products of our own: decoding's, which is as fast as the weight can be read, and one for
// whatever shapes and machines cuBLASLt is not there for.
#include "worker/engines/llama/cuda/device_code.cuh"

namespace penstock::llama::cuda {
namespace {

// ---- gemv --------------------------------------------------------------------------------------

constexpr int kGemvThreads = 256;
constexpr int kGemvWarps = kGemvThreads / kWarp;

constexpr int kAhead = 4;  // loads a lane has under way

// A warp for each row of the weight. The few rows of x, read by every warp, stay in the first-level
// cache; the weight passes it by.
template <typename W, int kVec, int kRows>
__global__ void __launch_bounds__(kGemvThreads)
    gemv_rows(float* out, const float* x, const W* weight, int64_t rows, int64_t cols,
              int64_t outputs) {
  constexpr int64_t kStride = kWarp * kVec;
  const int64_t output = static_cast<int64_t>(blockIdx.x) * kGemvWarps + threadIdx.x / kWarp;
  if (output >= outputs) {
    return;  // the whole warp
  }
  const W* from = weight + output * cols;
  float sums[kRows] = {};
  for (int64_t first = threadIdx.x % kWarp * kVec; first < cols; first += kAhead * kStride) {
    Together<W, kVec> ahead[kAhead] = {};
    PENSTOCK_UNROLL
    for (int j = 0; j < kAhead; ++j) {
      if (first + j * kStride < cols) {
        ahead[j] = load_once<W, kVec>(from + first + j * kStride);
      }
    }
    PENSTOCK_UNROLL
    for (int j = 0; j < kAhead; ++j) {
      const int64_t at = first + j * kStride;
      float w[kVec];
      widen_all(ahead[j], w);
      PENSTOCK_UNROLL
      for (int row = 0; row < kRows; ++row) {
        if (row < rows && at < cols) {
          float v[kVec];
          load(x + row * cols + at, v);
          PENSTOCK_UNROLL
          for (int i = 0; i < kVec; ++i) {
            sums[row] += w[i] * v[i];
          }
        }
      }
    }
  }
  PENSTOCK_UNROLL
  for (int row = 0; row < kRows; ++row) {
    const float sum = warp_sum(sums[row]);
    if (threadIdx.x % kWarp == 0 && row < rows) {
      out[row * outputs + output] = sum;
    }
  }
}

template <typename W, int kVec>
void launch_gemv(CUstream_st* stream, float* out, const float* x, const Matrix& weight,
                 int64_t rows) {
  const dim3 grid(static_cast<unsigned>((weight.rows + kGemvWarps - 1) / kGemvWarps));
  const W* data = static_cast<const W*>(weight.data);
  if (rows == 1) {
    PENSTOCK_LAUNCH((gemv_rows<W, kVec, 1>), grid, kGemvThreads, 0, stream, out, x, data, rows,
                    weight.cols, weight.rows);
  } else if (rows == 2) {
    PENSTOCK_LAUNCH((gemv_rows<W, kVec, 2>), grid, kGemvThreads, 0, stream, out, x, data, rows,
                    weight.cols, weight.rows);
  } else {
    PENSTOCK_LAUNCH((gemv_rows<W, kVec, kGemvRows>), grid, kGemvThreads, 0, stream, out, x, data,
                    rows, weight.cols, weight.rows);
  }
}

// 16 bytes at a time where every row of the weight begins at a multiple of that.
template <typename W>
void launch_gemv_of(CUstream_st* stream, float* out, const float* x, const Matrix& weight,
                    int64_t rows) {
  constexpr int kVec = 16 / sizeof(W);
  if (weight.cols % kVec == 0 && reinterpret_cast<uintptr_t>(weight.data) % 16 == 0) {
    launch_gemv<W, kVec>(stream, out, x, weight, rows);
  } else {
    launch_gemv<W, 1>(stream, out, x, weight, rows);
  }
}

// ---- tiled -------------------------------------------------------------------------------------

constexpr int kSide = 64;   // of a block's square of the output
constexpr int kDepth = 16;  // summed between two loads into shared memory
constexpr int kEach = 4;    // a thread's square
constexpr int kAcross = kSide / kEach;
constexpr int kTiledThreads = kAcross * kAcross;

// to[k][i] = from[first + i, at + k], or 0 outside. Threads go along a row of `from`.
template <typename T>
__device__ inline void load_square(float (&to)[kDepth][kSide + kEach], const T* from, int64_t first,
                                   int64_t rows, int64_t at, int64_t cols) {
  for (int i = threadIdx.x; i < kSide * kDepth; i += kTiledThreads) {
    const int64_t row = first + i / kDepth;
    const int64_t col = at + i % kDepth;
    to[i % kDepth][i / kDepth] = row < rows && col < cols ? widen(from[row * cols + col]) : 0.0F;
  }
}

template <typename W>
__global__ void __launch_bounds__(kTiledThreads)
    tiled(float* out, const float* x, const W* weight, int64_t rows, int64_t cols,
          int64_t outputs) {
  __shared__ float xs[kDepth][kSide + kEach];
  __shared__ float ws[kDepth][kSide + kEach];
  const int64_t first_output = static_cast<int64_t>(blockIdx.x) * kSide;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kSide;
  const int across = static_cast<int>(threadIdx.x) % kAcross * kEach;  // outputs
  const int down = static_cast<int>(threadIdx.x) / kAcross * kEach;    // rows
  float sums[kEach][kEach] = {};
  for (int64_t at = 0; at < cols; at += kDepth) {
    load_square(xs, x, first_row, rows, at, cols);
    load_square(ws, weight, first_output, outputs, at, cols);
    __syncthreads();
    for (int k = 0; k < kDepth; ++k) {
      PENSTOCK_UNROLL
      for (int i = 0; i < kEach; ++i) {
        PENSTOCK_UNROLL
        for (int j = 0; j < kEach; ++j) {
          sums[i][j] += xs[k][down + i] * ws[k][across + j];
        }
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < kEach; ++i) {
    for (int j = 0; j < kEach; ++j) {
      const int64_t row = first_row + down + i;
      const int64_t output = first_output + across + j;
      if (row < rows && output < outputs) {
        out[row * outputs + output] = sums[i][j];
      }
    }
  }
}

template <typename W>
void launch_tiled(CUstream_st* stream, float* out, const float* x, const Matrix& weight,
                  int64_t rows) {
  const dim3 grid(static_cast<unsigned>((weight.rows + kSide - 1) / kSide),
                  static_cast<unsigned>((rows + kSide - 1) / kSide));
  PENSTOCK_LAUNCH(tiled<W>, grid, kTiledThreads, 0, stream, out, x,
                  static_cast<const W*>(weight.data), rows, weight.cols, weight.rows);
}

}  // namespace

void gemv(CUstream_st* stream, float* out, const float* x, const Matrix& weight, int64_t rows) {
  visit(weight.dtype, [&]<typename W>(W) { launch_gemv_of<W>(stream, out, x, weight, rows); });
}

void matmul_tiled(CUstream_st* stream, float* out, const float* x, const Matrix& weight,
                  int64_t rows) {
  visit(weight.dtype, [&]<typename W>(W) { launch_tiled<W>(stream, out, x, weight, rows); });
}

}  // namespace penstock::llama::cuda
