#include "worker/engines/llama/cuda/runner.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "worker/engines/llama/cuda/kernels.h"

namespace penstock::llama::cuda {
namespace {

constexpr int64_t kDefaultPrefillTokens = 512;

// Adds the step to a device's error, which itself says the name.
Error in_step(const Error& error, const BatchShape& shape) {
  return Error{error.message + " (in a step of " + std::to_string(shape.rows) + " tokens, " +
               std::to_string(shape.draws) + " to draw)"};
}

#if PENSTOCK_CUDA_FAULTS
// In builds for checks: the step that PENSTOCK_CUDA_FAULT_AT_STEP counts down to goes wrong.
bool fault_is_due() {
  static const char* at = std::getenv("PENSTOCK_CUDA_FAULT_AT_STEP");
  static int64_t left = at != nullptr ? std::atoll(at) : 0;
  return left > 0 && --left == 0;
}
#endif

}  // namespace

CudaRunner::CudaRunner(ModelConfig config, DeviceInfo device, std::unique_ptr<CublasLt> library,
                       const CudaOptions& options)
    : config_(std::move(config)),
      device_(std::move(device)),
      options_(options),
      max_parts_(std::clamp<int64_t>(options.max_parts, 1, kMaxParts)),
      prefill_tokens_(options.prefill_tokens > 0 ? options.prefill_tokens : kDefaultPrefillTokens),
      heads_{config_.heads, config_.kv_heads, config_.head_dim},
      matmul_(std::move(library), options.exact) {}

Result<std::unique_ptr<CudaRunner>> CudaRunner::make(const ModelFiles& files,
                                                     const DeviceInfo& device,
                                                     std::unique_ptr<CublasLt> library,
                                                     const CudaOptions& options) {
  if (!can_attend(files.config.head_dim)) {
    return Error{"there is no attention kernel for heads of " +
                 std::to_string(files.config.head_dim) + " components; use device: cpu"};
  }
  std::unique_ptr<CudaRunner> runner(
      new CudaRunner(files.config, device, std::move(library), options));
  auto stream = make_stream(options.high_priority);
  if (!stream) {
    return stream.error();
  }
  runner->stream_ = std::move(*stream);
  if (options.sleeps) {
    auto event = make_event();
    if (!event) {
      return event.error();
    }
    runner->done_ = std::move(*event);
  }
  auto weights = upload(files);
  if (!weights) {
    return weights.error();
  }
  runner->weights_ = std::move(*weights);
  const DType dtype = options.exact ? DType::kF32 : files.weights.layers.front().key.dtype;
  Status done = runner->make_room();
  if (done) {
    done = runner->make_cache(dtype);
  }
  if (done && options.graphs) {
    done = runner->make_graphs();
  }
  if (!done) {
    return done.error();
  }
  return runner;
}

// ---- what is allocated -------------------------------------------------------------------------

int64_t CudaRunner::row_capacity() const {
  return Matmul::padded(prefill_tokens_ + bucket_of(max_parts_));
}

// Points room_ into memory at `base` and returns how much of it there must be.
int64_t CudaRunner::lay_out(std::byte* base) {
  Layout layout;
  const int64_t rows = row_capacity();
  const int64_t draws = Matmul::padded(bucket_of(max_parts_));
  const int64_t query = heads_.heads * heads_.head_dim;
  const int64_t qkv = query + 2 * heads_.kv_heads * heads_.head_dim;
  const int64_t widest = std::max({config_.hidden, query, config_.intermediate});
  const int64_t parts =
      heads_.heads * most_partials(rows, heads_.heads, heads_.kv_heads, device_.processors);
  const auto take = [&](int64_t count, DType dtype) -> std::byte* {
    const int64_t at = layout.take(count * bytes_of(dtype));
    return base == nullptr ? nullptr : base + at;  // null: only the size is asked for
  };
  const auto floats = [&](int64_t count) {
    return reinterpret_cast<float*>(take(count, DType::kF32));
  };
  const auto halves = [&](int64_t count) { return take(count, DType::kBF16); };
  room_.hidden = floats(rows * config_.hidden);
  room_.delta = floats(rows * config_.hidden);
  room_.qkv = floats(rows * qkv);
  room_.gate_up = floats(rows * 2 * config_.intermediate);
  room_.logits = floats(draws * config_.vocabulary);
  room_.drawn = reinterpret_cast<int32_t*>(floats(draws));
  room_.logprobs = floats(draws);
  room_.edits = take(edit_bytes() / bytes_of(DType::kF32), DType::kF32);
  room_.activation = {floats(rows * widest), halves(rows * widest),
                      options_.exact ? halves(rows * widest) : nullptr};
  room_.partials = {floats(parts * heads_.head_dim), floats(parts), floats(parts)};
  return layout.bytes();
}

// Where each row's edits begin, then the edits.
int64_t CudaRunner::begins_bytes() const {
  return round_up((bucket_of(max_parts_) + 1) * static_cast<int64_t>(sizeof(int32_t)),
                  alignof(LogitEdit) * 4);
}

int64_t CudaRunner::edit_bytes() const {
  return begins_bytes() + config_.vocabulary * static_cast<int64_t>(sizeof(LogitEdit));
}

Status CudaRunner::make_room() {
  auto staging =
      allocate_pinned(edit_bytes() + bucket_of(max_parts_) * static_cast<int64_t>(sizeof(float)));
  if (!staging) {
    return staging.error();
  }
  edit_staging_ = std::move(*staging);
  auto memory = allocate_on_device(lay_out(nullptr));
  if (!memory) {
    return Error{"activations: " + memory.error().message};
  }
  memory_ = std::move(*memory);
  lay_out(memory_.get());
  return prepare_products();
}

Status CudaRunner::make_cache(DType dtype) {
  const int64_t layer_bytes =
      heads_.kv_heads * heads_.head_dim * kBlockTokens * bytes_of(dtype);  // keys of one block
  block_bytes_ = 2 * config_.layers * layer_bytes;
  const auto free = free_bytes();
  if (!free) {
    return free.error();
  }
  const int64_t most =
      std::min<int64_t>(INT32_MAX, max_parts_ * BlockPool::blocks_for(config_.max_positions));
  const auto blocks = pool_blocks(options_.memory_bytes, *free, block_bytes_, most);
  if (!blocks) {
    return blocks.error();
  }
  blocks_ = BlockPool(*blocks);
  const int64_t step = round_up(*blocks * layer_bytes, Layout::kAlign);
  limits_ = {row_capacity(), bucket_of(max_parts_), *blocks};
  const int64_t batch_bytes = round_up(BatchView::bytes(limits_), Layout::kAlign);
  auto memory = allocate_on_device(2 * config_.layers * step + batch_bytes);
  auto staging =
      allocate_pinned(batch_bytes + limits_.draws * static_cast<int64_t>(sizeof(int32_t)));
  if (!memory || !staging) {
    return memory ? staging.error() : memory.error();
  }
  cache_memory_ = std::move(*memory);
  staging_ = std::move(*staging);
  std::byte* at = cache_memory_.get();
  for (int64_t layer = 0; layer < config_.layers; ++layer, at += 2 * step) {
    cache_.push_back({at, at + step, dtype});
  }
  room_.batch = at;
  batch_ = BatchView(at, limits_);
  host_batch_ = BatchView(staging_.get(), limits_);
  host_drawn_ = staging_.get() + batch_bytes;
  return Ok{};
}

// Layers are alike.
Status CudaRunner::prepare_products() {
  Status done = Ok{};
  const auto prepare = [&](const Matrix& weight, float* out, int64_t most) {
    done = done ? matmul_.prepare(stream_.get(), out, room_.activation, weight, most) : done;
  };
  const DeviceLayer& layer = weights_.layers.front();
  prepare(layer.qkv, room_.qkv, row_capacity());
  prepare(layer.output, room_.delta, row_capacity());
  prepare(layer.gate_up, room_.gate_up, row_capacity());
  prepare(layer.down, room_.delta, row_capacity());
  prepare(weights_.logits, room_.logits, bucket_of(max_parts_));
  const Status finished = wait(stream_.get());
  return done ? finished : done;
}

// Each bucket runs once as it is, so that CUDA and cuBLASLt have loaded what they need, and is then
// captured. No row of these steps stands anywhere.
Status CudaRunner::make_graphs() {
  for (int64_t rows = 1; rows <= max_parts_; ++rows) {
    const int64_t bucket = bucket_of(rows);
    if (graphs_.contains(bucket)) {
      continue;
    }
    const BatchShape shape = fill(host_batch_, {}, 1, bucket);
    Status done = run(shape);
    if (!done) {
      return done;
    }
    auto graph = capture(stream_.get(), [this, shape] { return forward(shape); });
    if (!graph) {
      return graph.error();
    }
    graphs_[bucket] = std::move(*graph);
  }
  return Ok{};
}

// ---- a step ------------------------------------------------------------------------------------

Result<std::span<const int32_t>> CudaRunner::step(std::span<const SequencePart> parts) {
  const bool decode = options_.graphs && is_decode(parts);
  const int64_t bucket = decode ? bucket_of(static_cast<int64_t>(parts.size())) : 0;
  const BatchShape shape =
      fill(host_batch_, parts, rows_per_tile(heads_.heads / heads_.kv_heads), bucket);
#if PENSTOCK_CUDA_FAULTS
  if (fault_is_due()) {
    illegal_access(stream_.get());
  }
#endif
  const Status done = run(shape);
  if (!done) {
    return in_step(done.error(), shape);
  }
  last_drawn_ = std::count_if(parts.begin(), parts.end(),
                              [](const SequencePart& part) { return part.wants_logits; });
  logprobs_.clear();
  if (std::any_of(parts.begin(), parts.end(), [](const SequencePart& part) {
        return !part.edits.empty() || part.wants_logprob;
      })) {
    const Status again = draw_edited(parts);
    if (!again) {
      return in_step(again.error(), shape);
    }
  }
  const auto* drawn = reinterpret_cast<const int32_t*>(host_drawn_);
  return std::span(drawn, static_cast<size_t>(last_drawn_));
}

Status CudaRunner::run(const BatchShape& shape) {
  CUstream_st* stream = stream_.get();
  Status done = copy_to_device(stream, room_.batch, staging_.get(), used_bytes(limits_, shape));
  if (!done) {
    return done;
  }
  // A shape that only a decode step has: as many tiles and draws as rows.
  const bool decode = shape.tiles == shape.rows && shape.draws == shape.rows;
  const auto graph = decode ? graphs_.find(shape.rows) : graphs_.end();
  done = graph != graphs_.end() ? launch(stream, graph->second.get()) : forward(shape);
  if (done && shape.draws > 0) {
    done = copy_to_host(stream, host_drawn_, reinterpret_cast<const std::byte*>(room_.drawn),
                        shape.draws * static_cast<int64_t>(sizeof(int32_t)));
  }
  const Status started = launched();
  const Status finished = done_ != nullptr ? wait_asleep(stream, done_.get()) : wait(stream);
  return !done ? done : !started ? started : finished;
}

Status CudaRunner::forward(const BatchShape& shape) {
  embed(stream_.get(), room_.hidden, weights_.embedding, batch_.tokens, shape.rows);
  const float* bias = nullptr;  // of the last block's delta
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const DeviceLayer& layer = weights_.layers[i];
    Status done = attend(layer, cache_[i], shape, i == 0 ? nullptr : room_.delta, bias);
    if (done) {
      done = feed_forward(layer, shape);
    }
    if (!done) {
      return done;
    }
    bias = layer.down_bias;
  }
  return shape.draws > 0 ? draw(shape) : Status(Ok{});
}

Status CudaRunner::attend(const DeviceLayer& weights, const CacheLayer& cache,
                          const BatchShape& shape, const float* delta, const float* delta_bias) {
  CUstream_st* stream = stream_.get();
  const int64_t rows = shape.rows;
  const Activation normed = matmul_.form(weights.qkv, rows, room_.activation);
  add_norm(stream,
           {.out = normed,
            .hidden = room_.hidden,
            .delta = delta,
            .delta_bias = delta_bias,
            .weight = weights.attention_norm,
            .epsilon = config_.norm_epsilon,
            .width = config_.hidden},
           rows);
  Status projected = matmul_.run(stream, room_.qkv, normed, weights.qkv, rows);
  if (!projected) {
    return projected;
  }
  rope_and_store(stream, {room_.qkv, weights.qkv_bias, weights_.frequencies, cache, batch_, heads_},
                 rows);
  const Activation attended = matmul_.form(weights.output, rows, room_.activation);
  const auto attend_to = [&](int64_t first, int64_t some, int64_t tiles) {
    BatchView batch = batch_;
    batch.tiles += first;
    if (some > 0) {
      attention(stream,
                {attended, room_.qkv, cache, batch, heads_, room_.partials,
                 splits_of(tiles, heads_.heads, heads_.kv_heads, device_.processors), first},
                tiles, some);
    }
  };
  attend_to(0, shape.decoding, shape.decoding);
  attend_to(shape.decoding, rows - shape.decoding, shape.tiles - shape.decoding);
  return matmul_.run(stream, room_.delta, attended, weights.output, rows);
}

Status CudaRunner::feed_forward(const DeviceLayer& weights, const BatchShape& shape) {
  CUstream_st* stream = stream_.get();
  const int64_t rows = shape.rows;
  const Activation normed = matmul_.form(weights.gate_up, rows, room_.activation);
  add_norm(stream,
           {.out = normed,
            .hidden = room_.hidden,
            .delta = room_.delta,
            .delta_bias = weights.output_bias,
            .weight = weights.mlp_norm,
            .epsilon = config_.norm_epsilon,
            .width = config_.hidden},
           rows);
  Status projected = matmul_.run(stream, room_.gate_up, normed, weights.gate_up, rows);
  if (!projected) {
    return projected;
  }
  const Activation inner = matmul_.form(weights.down, rows, room_.activation);
  swiglu(stream, inner, room_.gate_up, weights.gate_up_bias, rows, config_.intermediate);
  return matmul_.run(stream, room_.delta, inner, weights.down, rows);
}

// Only rows that someone draws from are worth the vocabulary's product.
Status CudaRunner::draw(const BatchShape& shape) {
  CUstream_st* stream = stream_.get();
  const Activation last = matmul_.form(weights_.logits, shape.draws, room_.activation);
  add_norm(stream,
           {.out = last,
            .hidden = room_.hidden,
            .delta = room_.delta,
            .delta_bias = weights_.layers.back().down_bias,
            .weight = weights_.norm,
            .picked = batch_.wanted,
            .epsilon = config_.norm_epsilon,
            .width = config_.hidden},
           shape.draws);
  Status projected = matmul_.run(stream, room_.logits, last, weights_.logits, shape.draws);
  if (!projected) {
    return projected;
  }
  sample(stream, room_.drawn, room_.logits, batch_.draws, shape.draws, config_.vocabulary);
  return Ok{};
}

Result<std::vector<float>> CudaRunner::last_logits() {
  const int64_t bytes = last_drawn_ * config_.vocabulary * bytes_of(DType::kF32);
  std::vector<float> logits(static_cast<size_t>(last_drawn_ * config_.vocabulary));
  auto pinned = allocate_pinned(std::max<int64_t>(1, bytes));
  if (!pinned) {
    return pinned.error();
  }
  Status done = copy_to_host(stream_.get(), pinned->get(),
                             reinterpret_cast<const std::byte*>(room_.logits), bytes);
  if (done) {
    done = wait(stream_.get());
  }
  if (!done) {
    return done.error();
  }
  std::memcpy(logits.data(), pinned->get(), static_cast<size_t>(bytes));
  return logits;
}

}  // namespace penstock::llama::cuda
