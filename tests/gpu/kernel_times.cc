// Each kernel by itself: launches of all layers in turn, so that no cache holds the weights,
// between two events.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <vector>

#include "tests/gpu/speed.h"
#include "tests/gpu/table.h"
#include "worker/engines/llama/cuda/kernels.h"
#include "worker/engines/llama/cuda/matmul.h"
#include "worker/engines/llama/cuda/plan.h"

namespace penstock::llama {
namespace {

constexpr int64_t kContext = 512;  // tokens of each sequence, for attention

Status of(cudaError_t error) {
  return error == cudaSuccess ? Status(Ok{}) : Status(Error{cudaGetErrorName(error)});
}

class Times {
 public:
  Times(const std::string& which, int64_t rows, const FlatModel& model,
        const cuda::DeviceWeights& weights, int64_t processors)
      : which_(which),
        rows_(rows),
        config_(model.files.config),
        heads_{config_.heads, config_.kv_heads, config_.head_dim},
        weights_(weights),
        processors_(processors),
        stream_(must(cuda::make_stream(true))) {
    auto library = cuda::open_cublaslt();
    matmul_ = std::make_unique<cuda::Matmul>(library ? std::move(*library) : nullptr, false);
    must(of(cudaEventCreate(&begun_)));
    must(of(cudaEventCreate(&ended_)));
    const int64_t padded = cuda::Matmul::padded(rows);
    const int64_t widest = std::max(config_.intermediate, config_.heads * config_.head_dim);
    const int64_t most = std::max({2 * config_.intermediate, config_.vocabulary,
                                   (config_.heads + 2 * config_.kv_heads) * config_.head_dim});
    const int64_t input = padded * std::max(widest, config_.hidden);
    room_ = {floats(input), floats(input), nullptr};
    hidden_ = floats(padded * config_.hidden);
    out_ = floats(padded * most);
  }
  ~Times() {
    cudaEventDestroy(begun_);
    cudaEventDestroy(ended_);
  }
  Times(const Times&) = delete;
  Times& operator=(const Times&) = delete;

  void run() {
    products("qkv", [](const auto& layer) { return layer.qkv; });
    products("output", [](const auto& layer) { return layer.output; });
    products("gate and up", [](const auto& layer) { return layer.gate_up; });
    products("down", [](const auto& layer) { return layer.down; });
    time("product with the vocabulary", bytes_of(weights_.logits),
         [&] { multiply(weights_.logits); });
    const int64_t width = config_.hidden;
    time("add_norm", rows_ * width * 18, [&] {
      cuda::add_norm(stream_.get(),
                     {.out = {.high = room_.high},
                      .hidden = hidden_,
                      .delta = out_,
                      .weight = weights_.norm,
                      .epsilon = 1e-5F,
                      .width = width},
                     rows_);
    });
    time("swiglu", rows_ * config_.intermediate * 10, [&] {
      cuda::swiglu(stream_.get(), {.high = room_.high}, out_, nullptr, rows_, config_.intermediate);
    });
    draws("sample, greedy", {.random = 0.5, .top_p = 1, .reach = HUGE_VALF});
    draws("sample, top_p 0.9",
          {.random = 0.5, .temperature = 1, .top_p = 0.9F, .reach = HUGE_VALF});
    draws("sample, top_k 40",
          {.random = 0.5, .temperature = 1, .top_p = 1, .top_k = 40, .reach = HUGE_VALF});
    attend();
  }

 private:
  static int64_t bytes_of(const cuda::Matrix& m) {
    return m.rows * m.cols * llama::bytes_of(m.dtype);
  }

  float* floats(int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(float));
    memory_.push_back(must(cuda::allocate_on_device(bytes)));
    must(of(cudaMemset(memory_.back().get(), 0, static_cast<size_t>(bytes))));
    return reinterpret_cast<float*>(memory_.back().get());
  }

  // A row for `launch`, which does its work `times` over and reads `bytes` each time.
  void time(const std::string& what, int64_t bytes, const std::function<void()>& launch,
            int64_t times = 1) {
    constexpr int kLaunches = 20;
    launch();
    must(cuda::launched());
    must(of(cudaEventRecord(begun_, stream_.get())));
    for (int i = 0; i < kLaunches; ++i) {
      launch();
    }
    must(of(cudaEventRecord(ended_, stream_.get())));
    must(cuda::wait(stream_.get()));
    float milliseconds = 0;
    must(of(cudaEventElapsedTime(&milliseconds, begun_, ended_)));
    const double seconds = milliseconds / 1e3 / kLaunches / static_cast<double>(times);
    row(text("%s, %lld rows: %s", which_.c_str(), static_cast<long long>(rows_), what.c_str()),
        text("%.1f us, %.0f GB/s", seconds * 1e6, static_cast<double>(bytes) / seconds / 1e9), "",
        true);
  }

  void multiply(const cuda::Matrix& weight) {
    must(matmul_->run(stream_.get(), out_, matmul_->form(weight, rows_, room_), weight, rows_));
  }

  template <typename Of>
  void products(const char* what, const Of& weight_of) {
    time(
        std::string("product with ") + what, bytes_of(weight_of(weights_.layers[0])),
        [&] {
          for (const cuda::DeviceLayer& layer : weights_.layers) {
            multiply(weight_of(layer));
          }
        },
        config_.layers);
  }

  // Of logits that are spread as a model's are: what is drawn from decides how often they are read.
  void draws(const char* what, const cuda::Draw& draw) {
    const int64_t vocabulary = config_.vocabulary;
    std::vector<float> logits(static_cast<size_t>(rows_ * vocabulary));
    for (size_t i = 0; i < logits.size(); ++i) {
      logits[i] = static_cast<float>(i * 2654435761U % 1000003) * 1.6e-5F;
    }
    must(cuda::load(reinterpret_cast<std::byte*>(out_), logits.data(),
                    static_cast<int64_t>(logits.size() * sizeof(float))));
    const std::vector<cuda::Draw> all(static_cast<size_t>(rows_), draw);
    auto* const on_device = reinterpret_cast<cuda::Draw*>(
        floats(rows_ * static_cast<int64_t>(sizeof(cuda::Draw) / sizeof(float))));
    must(cuda::load(reinterpret_cast<std::byte*>(on_device), all.data(),
                    rows_ * static_cast<int64_t>(sizeof(cuda::Draw))));
    time(what, rows_ * vocabulary * 4, [&] {
      cuda::sample(stream_.get(), reinterpret_cast<int32_t*>(hidden_), out_, on_device, rows_,
                   vocabulary);
    });
  }

  // One token each of so many sequences, each after kContext others.
  void attend() {
    const int64_t per_sequence = BlockPool::blocks_for(kContext + 1);
    std::vector<int32_t> blocks(static_cast<size_t>(per_sequence * rows_));
    for (size_t i = 0; i < blocks.size(); ++i) {
      blocks[i] = static_cast<int32_t>(i);
    }
    const int32_t token = 1;
    std::vector<SequencePart> parts;
    for (int64_t i = 0; i < rows_; ++i) {
      parts.push_back({std::span(&token, 1), kContext,
                       std::span(blocks).subspan(i * per_sequence, per_sequence), true});
    }
    const cuda::BatchLimits limits{rows_, rows_, static_cast<int64_t>(blocks.size())};
    std::vector<std::byte> host(cuda::BatchView::bytes(limits));
    const auto shape = cuda::fill(cuda::BatchView(host.data(), limits), parts,
                                  cuda::rows_per_tile(config_.heads / config_.kv_heads), rows_);
    auto* const batch =
        reinterpret_cast<std::byte*>(floats(static_cast<int64_t>(host.size()) / 4 + 1));
    must(cuda::load(batch, host.data(), static_cast<int64_t>(host.size())));
    const cuda::BatchView view(batch, limits);
    const int64_t cached =
        static_cast<int64_t>(blocks.size()) * kBlockTokens * config_.kv_heads * config_.head_dim;
    const cuda::CacheLayer cache{floats(cached / 2), floats(cached / 2), DType::kBF16};
    time("rope_and_store", rows_ * config_.head_dim * (8 * config_.heads + 12 * config_.kv_heads),
         [&] {
           cuda::rope_and_store(stream_.get(),
                                {out_, nullptr, weights_.frequencies, cache, view, heads_}, rows_);
         });
    const int32_t splits =
        cuda::splits_of(shape.tiles, config_.heads, config_.kv_heads, processors_);
    const int64_t partials = splits * rows_ * config_.heads;
    const cuda::Partials room{floats(partials * config_.head_dim), floats(partials),
                              floats(partials)};
    time(text("attention after %lld tokens, %d splits", static_cast<long long>(kContext), splits),
         rows_ * kContext * config_.kv_heads * config_.head_dim * 4, [&] {
           cuda::attention(stream_.get(),
                           {{.high = room_.high}, out_, cache, view, heads_, room, splits},
                           shape.tiles, rows_);
         });
  }

  const std::string which_;
  const int64_t rows_;
  const ModelConfig config_;
  const HeadShape heads_;
  const cuda::DeviceWeights& weights_;
  const int64_t processors_;
  cuda::Stream stream_;
  std::unique_ptr<cuda::Matmul> matmul_;
  cudaEvent_t begun_ = nullptr;
  cudaEvent_t ended_ = nullptr;
  std::vector<cuda::DeviceMemory> memory_;
  cuda::ActivationRoom room_;
  float* hidden_ = nullptr;
  float* out_ = nullptr;
};

}  // namespace

void measure_kernels(const std::string& which, std::span<char*> rows,
                     const cuda::DeviceInfo& device) {
  const FlatModel model = must(which == "1b"   ? random_model(shape_1b(), DType::kBF16, 1)
                               : which == "8b" ? random_model(shape_8b(), DType::kBF16, 1)
                                               : read_flat(which));
  const cuda::DeviceWeights weights = must(cuda::upload(model.files));
  for (const char* argument : rows) {
    Times(which.substr(which.rfind('/') + 1), std::clamp<int64_t>(std::atoll(argument), 1, 256),
          model, weights, device.processors)
        .run();
  }
}

}  // namespace penstock::llama
