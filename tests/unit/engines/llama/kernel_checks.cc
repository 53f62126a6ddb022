#include "tests/unit/engines/llama/kernel_checks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "worker/engines/llama/cuda/kernels.h"
#include "worker/engines/llama/cuda/plan.h"
#include "worker/engines/llama/cuda/runtime.h"
#include "worker/engines/llama/ops.h"
#include "worker/engines/llama/rope.h"
#include "worker/engines/llama/sampler.h"

namespace penstock::llama::cuda {
namespace {

constexpr DType kAllTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
constexpr int32_t kDecodeSplits = 5;  // of rows that decode, whatever the others have
constexpr size_t kGuards = 8;         // elements behind each output that nobody may write

const char* name_of(DType dtype) {
  return dtype == DType::kF32 ? "f32" : dtype == DType::kF16 ? "f16" : "bf16";
}

// Half a unit in the last place, relative.
double rounding_of(DType dtype) {
  return dtype == DType::kF32 ? 1e-7 : dtype == DType::kF16 ? 0x1p-11 : 0x1p-8;
}

// What a check says went wrong ends it.
struct Broken {
  std::string why;
};

void must(const Status& status) {
  if (!status) {
    throw Broken{status.error().message};
  }
}

// An array on the device. Read back it comes without its guard, which must be as it was.
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values) : size_(values.size()) {
    std::vector<T> guarded = values;
    guarded.resize(size_ + kGuards);
    std::memset(static_cast<void*>(guarded.data() + size_), 0xFF, kGuards * sizeof(T));
    store(guarded);
  }
  // Full of 0xFF: NaN in every format.
  explicit OnDevice(size_t size) : size_(size) {
    std::vector<T> poison(size + kGuards);
    std::memset(static_cast<void*>(poison.data()), 0xFF, poison.size() * sizeof(T));
    store(poison);
  }

  T* data() const { return reinterpret_cast<T*>(memory_.get()); }

  std::vector<T> read(CUstream_st* stream) const {
    const auto bytes = static_cast<int64_t>((size_ + kGuards) * sizeof(T));
    auto pinned = allocate_pinned(bytes);
    if (!pinned) {
      throw Broken{pinned.error().message};
    }
    must(launched());
    must(copy_to_host(stream, pinned->get(), memory_.get(), bytes));
    must(wait(stream));
    std::vector<T> values(size_ + kGuards);
    std::memcpy(values.data(), pinned->get(), static_cast<size_t>(bytes));
    const auto* guard = reinterpret_cast<const unsigned char*>(values.data() + size_);
    if (std::any_of(guard, guard + kGuards * sizeof(T),
                    [](unsigned char c) { return c != 0xFF; })) {
      throw Broken{"wrote behind its output"};
    }
    values.resize(size_);
    return values;
  }

 private:
  void store(const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    auto memory = allocate_on_device(bytes);
    if (!memory) {
      throw Broken{memory.error().message};
    }
    memory_ = std::move(*memory);
    must(load(memory_.get(), values.data(), bytes));
  }

  size_t size_;
  DeviceMemory memory_;
};

// A weight in some dtype, on both sides.
struct Weight {
  std::vector<std::byte> host;
  ConstTensor tensor;  // the host's
  OnDevice<std::byte> device;
  Matrix matrix() const { return {device.data(), tensor.dtype, tensor.rows, tensor.cols}; }
};

class Checks {
 public:
  Checks(bool large, unsigned seed) : large_(large), seed_(seed) {}

  std::vector<std::string> names() {
    run([&](const std::string&) { return false; });
    return names_;
  }

  std::vector<CheckResult> run_one_or_all(const std::string& name) {
    auto stream = make_stream(true);
    if (!stream) {
      throw Broken{stream.error().message};
    }
    stream_ = std::move(*stream);
    run([&](const std::string& each) { return name.empty() || name == each; });
    return results_.empty() ? std::vector<CheckResult>{{.name = name, .failure = "no such check"}}
                            : std::move(results_);
  }

 private:
  void run(const std::function<bool(const std::string&)>& wanted) {
    wanted_ = wanted;
    for (const DType dtype : kAllTypes) {
      const std::string type = std::string(" ") + name_of(dtype);
      check("embed" + type, 0, [&](auto& r) { check_embed(r, dtype); });
      // Sums of a row of a product: in F32, over some thousand terms in the large shapes.
      check("gemv" + type, large_ ? 2e-4 : 2e-5, [&](auto& r) { check_gemv(r, dtype); });
      check("matmul_tiled" + type, large_ ? 2e-4 : 2e-5, [&](auto& r) { check_tiled(r, dtype); });
      // Angles of positions up to a thousand: half a unit of the angle is 3e-5.
      check("rope_and_store" + type, 1e-4 + rounding_of(dtype),
            [&](auto& r) { check_attention(r, dtype, true); });
      check("attention" + type, 5e-5, [&](auto& r) { check_attention(r, dtype, false); });
    }
    check("add_norm", 2e-5, [&](auto& r) { check_add_norm(r); });
    check("swiglu", 2e-6, [&](auto& r) { check_swiglu(r); });
    check("rounded forms", 1, [&](auto& r) { check_forms(r); });
    check("sample greedy", 0, [&](auto& r) { check_greedy(r); });
    check("sample top_p top_k min_p", 1, [&](auto& r) { check_draws(r); });
    check("edit and restore", 1e-6, [&](auto& r) { check_edits(r); });
    check("score", 1e-5, [&](auto& r) { check_scores(r); });
  }

  template <typename Body>
  void check(const std::string& name, double tolerance, const Body& body) {
    names_.push_back(name);
    if (!wanted_(name)) {
      return;
    }
    random_.seed(seed_ + static_cast<unsigned>(names_.size()));  // whichever ran before
    CheckResult result{name, 0, 0, tolerance, ""};
    try {
      body(result);
    } catch (const Broken& broken) {
      result.failure = broken.why;
    }
    results_.push_back(std::move(result));
  }

  static void compare(CheckResult& result, const std::vector<float>& got,
                      std::span<const float> expected) {
    if (got.size() != expected.size()) {
      throw Broken{"sizes differ"};
    }
    for (size_t i = 0; i < got.size(); ++i) {
      const double difference = std::fabs(static_cast<double>(got[i]) - expected[i]) /
                                std::max(1.0, std::fabs(static_cast<double>(expected[i])));
      if (!(difference <= result.tolerance) && result.failure.empty()) {
        result.failure = "number " + std::to_string(i) + " of " + std::to_string(got.size()) +
                         " is " + std::to_string(got[i]) + ", expected " +
                         std::to_string(expected[i]);
      }
      result.worst = std::max(result.worst, difference);
      ++result.numbers;
    }
  }

  int64_t between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }

  std::vector<float> normal(int64_t count, float scale = 1) {
    std::normal_distribution<float> distribution(0, scale);
    std::vector<float> values(count);
    std::generate(values.begin(), values.end(), [&] { return distribution(random_); });
    return values;
  }

  Weight weight(int64_t rows, int64_t cols, DType dtype, float scale = 1) {
    const std::vector<float> from = normal(rows * cols, scale);
    std::vector<std::byte> bytes(rows * cols * bytes_of(dtype));
    for (size_t i = 0; i < from.size(); ++i) {
      uint32_t bits;
      std::memcpy(&bits, &from[i], 4);
      const int exponent = static_cast<int>(bits >> 23 & 0xFF) - 112;
      const auto f16 = static_cast<uint16_t>(
          (bits >> 16 & 0x8000) |
          (exponent > 0 && exponent < 31 ? exponent << 10 | (bits >> 13 & 0x3FF) : 0));
      const auto bf16 = static_cast<uint16_t>(bits >> 16);
      const void* source = dtype == DType::kF32   ? static_cast<const void*>(&bits)
                           : dtype == DType::kF16 ? static_cast<const void*>(&f16)
                                                  : static_cast<const void*>(&bf16);
      std::memcpy(bytes.data() + i * bytes_of(dtype), source, bytes_of(dtype));
    }
    OnDevice<std::byte> device(bytes);
    Weight w{std::move(bytes), {}, std::move(device)};
    w.tensor = {w.host.data(), dtype, rows, cols};
    return w;
  }

  static Tensor tensor(std::vector<float>& values, int64_t rows) {
    return {reinterpret_cast<std::byte*>(values.data()), DType::kF32, rows,
            static_cast<int64_t>(values.size()) / rows};
  }

  void check_embed(CheckResult& result, DType dtype) {
    for (const int64_t width : {1, 7, 64, 301}) {
      const Weight table = weight(19, width, dtype);
      const std::vector<int32_t> tokens = {18, 0, 3, 3, 11};
      OnDevice<float> out(tokens.size() * width);
      const OnDevice<int32_t> tokens_on_device(tokens);
      embed(stream_.get(), out.data(), table.matrix(), tokens_on_device.data(), 5);
      std::vector<float> expected(tokens.size() * width);
      reference_->embed(tensor(expected, 5), table.tensor, tokens);
      compare(result, out.read(stream_.get()), expected);
    }
  }

  using Product = void (*)(CUstream_st*, float*, const float*, const Matrix&, int64_t);
  void check_product(CheckResult& result, Product product, int64_t rows, const Weight& w) {
    std::vector<float> x = normal(rows * w.tensor.cols);
    const OnDevice<float> on_device(x);
    OnDevice<float> out(rows * w.tensor.rows);
    product(stream_.get(), out.data(), on_device.data(), w.matrix(), rows);
    std::vector<float> expected(rows * w.tensor.rows);
    reference_->matmul(tensor(expected, rows), tensor(x, rows), w.tensor, {});
    compare(result, out.read(stream_.get()), expected);
  }

  // Weights are scaled so that outputs are near 1, as they are in a model.
  Weight product_weight(int64_t rows, int64_t cols, DType dtype) {
    return weight(rows, cols, dtype, 1 / std::sqrt(static_cast<float>(cols)));
  }

  void check_gemv(CheckResult& result, DType dtype) {
    for (const int64_t cols : {1, 8, 24, 131, 256, 1032, 1101}) {
      const Weight w = product_weight(between(1, 37), cols, dtype);
      for (int64_t rows = 1; rows <= kGemvRows; ++rows) {
        check_product(result, gemv, rows, w);
      }
    }
    if (large_) {
      check_product(result, gemv, 1, product_weight(4096, 14336, dtype));
      check_product(result, gemv, 3, product_weight(6144, 4096, dtype));
    }
  }

  void check_tiled(CheckResult& result, DType dtype) {
    for (int round = 0; round < 5; ++round) {
      check_product(result, matmul_tiled, between(1, 130),
                    product_weight(between(1, 140), between(1, 70), dtype));
    }
    if (large_) {
      check_product(result, matmul_tiled, 77, product_weight(1001, 2049, dtype));
    }
  }

  void check_add_norm(CheckResult& result) {
    for (int round = 0; round < 24; ++round) {
      const int64_t rows = between(1, 6);
      const int64_t width = round == 0 ? 1 : between(2, large_ ? 9000 : 600);
      std::vector<float> hidden = normal(rows * width, 4);
      const std::vector<float> delta = normal(rows * width);
      const std::vector<float> bias = normal(width);
      const Weight w = weight(1, width, DType::kF32);
      const std::vector<int32_t> picked = {static_cast<int32_t>(rows - 1), 0};
      OnDevice<float> on_device(hidden);
      const OnDevice<float> delta_on_device(delta);
      const OnDevice<float> bias_on_device(bias);
      const OnDevice<int32_t> picked_on_device(picked);
      const bool has_delta = round % 4 != 0;
      const bool has_bias = round % 4 >= 2;
      const bool picks = round % 2 == 1;
      const auto outputs = picks ? static_cast<int64_t>(picked.size()) : rows;
      OnDevice<float> out(outputs * width);
      add_norm(stream_.get(),
               {.out = {.f32 = out.data()},
                .hidden = on_device.data(),
                .delta = has_delta ? delta_on_device.data() : nullptr,
                .delta_bias = has_bias ? bias_on_device.data() : nullptr,
                .weight = reinterpret_cast<const float*>(w.device.data()),
                .picked = picks ? picked_on_device.data() : nullptr,
                .epsilon = 1e-5F,
                .width = width},
               outputs);
      const std::vector<float> before = hidden;
      for (int64_t i = 0; has_delta && i < rows * width; ++i) {
        hidden[i] += delta[i] + (has_bias ? bias[i % width] : 0);
      }
      compare(result, on_device.read(stream_.get()), picks ? before : hidden);
      std::vector<float> normed(rows * width);
      reference_->rms_norm(tensor(normed, rows), tensor(hidden, rows), w.tensor, 1e-5F);
      std::vector<float> expected = normed;
      if (picks) {
        expected.resize(outputs * width);
        reference_->embed(tensor(expected, outputs), tensor(normed, rows), picked);
      }
      compare(result, out.read(stream_.get()), expected);
    }
  }

  void check_swiglu(CheckResult& result) {
    for (const float scale : {1.0F, 30.0F, 1000.0F}) {
      for (const int64_t width : {1, 33, 1025, large_ ? 14336 : 1300}) {
        const int64_t rows = between(1, 4);
        const std::vector<float> both = normal(rows * 2 * width, scale);
        const std::vector<float> bias = normal(2 * width);
        const OnDevice<float> on_device(both);
        const OnDevice<float> bias_on_device(bias);
        for (const bool biased : {false, true}) {
          OnDevice<float> out(rows * width);
          swiglu(stream_.get(), {.f32 = out.data()}, on_device.data(),
                 biased ? bias_on_device.data() : nullptr, rows, width);
          std::vector<float> gate(rows * width);
          std::vector<float> up(rows * width);
          for (int64_t i = 0; i < rows * width; ++i) {
            const int64_t at = i / width * 2 * width + i % width;
            gate[i] = both[at] + (biased ? bias[i % width] : 0);
            up[i] = both[at + width] + (biased ? bias[width + i % width] : 0);
          }
          reference_->swiglu(tensor(gate, rows), tensor(up, rows));
          compare(result, out.read(stream_.get()), gate);
        }
      }
    }
  }

  // A rounded activation is within half a unit of its dtype, and with what rounding lost within
  // half a unit of the square of that; all are compared with the F32 of the same launch. `worst` is
  // in those units. F16 runs out of range at both ends and is held to what remains of it.
  void check_forms(CheckResult& result) {
    constexpr int64_t kWidth = 515;
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      for (const float scale : {1e-3F, 1.0F, 300.0F}) {
        const OnDevice<float> both(normal(2 * kWidth, scale));
        OnDevice<float> f32(kWidth);
        OnDevice<uint16_t> high(kWidth);
        OnDevice<uint16_t> low(kWidth);
        swiglu(stream_.get(), {f32.data(), high.data(), low.data(), dtype}, both.data(), nullptr, 1,
               kWidth);
        const std::vector<float> plain = f32.read(stream_.get());
        const std::vector<uint16_t> highs = high.read(stream_.get());
        const std::vector<uint16_t> lows = low.read(stream_.get());
        const double half = rounding_of(dtype);
        for (int64_t i = 0; i < kWidth; ++i) {
          const auto value = [&](const std::vector<uint16_t>& from) {
            return ConstTensor{reinterpret_cast<const std::byte*>(&from[i]), dtype, 1, 1}.at(0, 0);
          };
          const double smallest = dtype == DType::kF16 ? 0x1p-25 : 0x1p-126;
          const double size = std::fabs(plain[i]);
          if (dtype == DType::kF16 && size > 65504) {
            continue;
          }
          const double off = std::fabs(value(highs) - static_cast<double>(plain[i]));
          const double rest = std::fabs(value(highs) + static_cast<double>(value(lows)) - plain[i]);
          result.worst = std::max({result.worst, off / (size * half + smallest),
                                   rest / (size * half * half + smallest)});
          if (!(off >= 0) || !(rest >= 0)) {
            result.failure = "NaN at " + std::to_string(i);
          }
          result.numbers += 2;
        }
      }
    }
  }

  // Sequences in a paged cache whose blocks are shuffled, each advanced by two steps: some tokens,
  // then some more.
  void check_attention(CheckResult& result, DType dtype, bool only_store) {
    std::vector<HeadShape> shapes = {{1, 1, 2},  {4, 2, 16}, {6, 2, 20}, {5, 5, 34},  {7, 1, 6},
                                     {19, 1, 8}, {8, 4, 24}, {3, 1, 72}, {6, 3, 128}, {2, 1, 264}};
    if (large_) {
      shapes.insert(shapes.end(),
                    {{32, 8, 128}, {16, 1, 64}, {8, 8, 96}, {65, 1, 4}, {4, 4, 1024}});
    }
    constexpr int32_t kSplits[] = {1, 3, kMaxSplits};
    const size_t small = 10;  // the reference takes its time over the others
    for (size_t i = 0; i < shapes.size(); ++i) {
      for (size_t j = 0; j < (large_ && i < small ? std::size(kSplits) : 1); ++j) {
        const int32_t splits = kSplits[(i + j) % std::size(kSplits)];
        check_attention_of(result, dtype, shapes[i], splits, only_store);
      }
    }
  }

  struct Sequence {
    std::vector<int32_t> blocks;
    int32_t lengths[2];  // after each step
  };

  void check_attention_of(CheckResult& result, DType dtype, const HeadShape& shape, int32_t splits,
                          bool only_store) {
    const int32_t longest = large_ ? 700 : 150;
    const auto per_sequence = static_cast<int32_t>(BlockPool::blocks_for(longest));
    constexpr int32_t kSequences = 3;
    std::vector<int32_t> ids(kSequences * per_sequence + 1);
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random_);
    std::vector<Sequence> sequences(kSequences);
    for (int32_t s = 0; s < kSequences; ++s) {
      sequences[s].blocks.assign(ids.begin() + s * per_sequence,
                                 ids.begin() + (s + 1) * per_sequence);
      sequences[s].lengths[0] = static_cast<int32_t>(between(1, longest - 1));
      const int32_t most = s == 0 ? 1 : longest - sequences[s].lengths[0];  // one is decoding
      sequences[s].lengths[1] = sequences[s].lengths[0] + static_cast<int32_t>(between(1, most));
    }
    const auto blocks = static_cast<int64_t>(ids.size());
    const size_t numbers = blocks * shape.kv_heads * kBlockTokens * shape.head_dim;
    OnDevice<std::byte> keys(numbers * bytes_of(dtype));
    OnDevice<std::byte> values(numbers * bytes_of(dtype));
    const CacheLayer cache{keys.data(), values.data(), dtype};
    // The reference's, which lies otherwise (ops.h).
    std::vector<float> ref_keys(numbers, std::numeric_limits<float>::quiet_NaN());
    std::vector<float> ref_values = ref_keys;
    const KvLayer ref_cache{tensor(ref_keys, blocks * shape.kv_heads * shape.head_dim),
                            tensor(ref_values, blocks * shape.kv_heads * kBlockTokens)};
    for (int step = 0; step < 2; ++step) {
      std::vector<std::vector<int32_t>> tokens;
      std::vector<SequencePart> parts;
      for (const Sequence& sequence : sequences) {
        const int32_t from = step == 0 ? 0 : sequence.lengths[0];
        tokens.emplace_back(sequence.lengths[step] - from);
        parts.push_back({tokens.back(), from, sequence.blocks, step == 1});
      }
      std::stable_partition(parts.begin(), parts.end(),  // as fill() lays them
                            [](const auto& part) { return part.tokens.size() == 1; });
      attention_step(result, parts, cache, ref_cache, shape, splits, only_store,
                     {keys, values, ref_keys, ref_values});
    }
  }

  struct Caches {
    const OnDevice<std::byte>& keys;
    const OnDevice<std::byte>& values;
    std::vector<float>& ref_keys;
    std::vector<float>& ref_values;
  };

  void attention_step(CheckResult& result, const std::vector<SequencePart>& parts,
                      const CacheLayer& cache, const KvLayer& ref_cache, const HeadShape& shape,
                      int32_t splits, bool only_store, const Caches& caches) {
    int64_t real = 0;
    for (const SequencePart& part : parts) {
      real += static_cast<int64_t>(part.tokens.size());
    }
    const int64_t rows = real + 2;  // two stand nowhere
    const BatchLimits limits{rows, rows, static_cast<int64_t>(parts.size()) * 50};
    std::vector<std::byte> host(BatchView::bytes(limits));
    const int64_t group = shape.heads / shape.kv_heads;
    const BatchShape filled =
        fill(BatchView(host.data(), limits), parts, rows_per_tile(group), rows);
    const OnDevice<std::byte> batch_memory(host);
    const BatchView batch(batch_memory.data(), limits);

    const int64_t query_width = shape.heads * shape.head_dim;
    const int64_t key_width = shape.kv_heads * shape.head_dim;
    const int64_t width = query_width + 2 * key_width;
    const std::vector<float> qkv = normal(rows * width, 1);
    const std::vector<float> bias = normal(width, 0.3F);
    ModelConfig config;
    config.head_dim = shape.head_dim;
    config.rope_theta = 10000;
    const std::vector<float> frequencies = rope_frequencies(config);
    OnDevice<float> on_device(qkv);
    const OnDevice<float> bias_on_device(bias);
    const OnDevice<float> frequencies_on_device(frequencies);
    rope_and_store(stream_.get(),
                   {on_device.data(), bias_on_device.data(), frequencies_on_device.data(), cache,
                    batch, shape},
                   rows);

    // The reference, on the rows that stand somewhere.
    std::vector<float> query(real * query_width);
    std::vector<float> key(real * key_width);
    std::vector<float> value(real * key_width);
    for (int64_t row = 0; row < real; ++row) {
      for (int64_t i = 0; i < width; ++i) {
        const float v = qkv[row * width + i] + bias[i];
        (i < query_width               ? query[row * query_width + i]
         : i < query_width + key_width ? key[row * key_width + i - query_width]
                                       : value[row * key_width + i - query_width - key_width]) = v;
      }
    }
    const std::vector<int32_t> positions(BatchView(host.data(), limits).positions,
                                         BatchView(host.data(), limits).positions + real);
    std::vector<int32_t> owners;
    std::vector<int32_t> tables;
    for (size_t s = 0; s < parts.size(); ++s) {
      owners.insert(owners.end(), parts[s].tokens.size(), static_cast<int32_t>(s));
      tables.insert(tables.end(), parts[s].blocks.begin(), parts[s].blocks.end());
    }
    const Placement placement{positions, owners, tables,
                              static_cast<int64_t>(parts[0].blocks.size())};
    std::vector<float> turns;
    rope_turns(frequencies, positions, turns);
    reference_->rope(tensor(query, real), tensor(turns, real), shape.head_dim);
    reference_->rope(tensor(key, real), tensor(turns, real), shape.head_dim);
    reference_->store_kv(ref_cache, tensor(key, real), tensor(value, real), placement, shape);

    const std::vector<float> stored_keys = floats(caches.keys, cache.dtype);
    const std::vector<float> stored_values = floats(caches.values, cache.dtype);
    const std::vector<float> turned = on_device.read(stream_.get());
    if (only_store) {
      compare_stored(result, stored_keys, caches.ref_keys, shape, true);
      compare_stored(result, stored_values, caches.ref_values, shape, false);
      for (int64_t row = 0; row < real; ++row) {
        const auto at = turned.begin() + row * width;
        compare(result, {at, at + query_width},
                std::span(query).subspan(row * query_width, query_width));
      }
      return;
    }
    // From here on the reference sees what the cache really holds, and the queries that are asked.
    take_stored(stored_keys, caches.ref_keys, shape, true);
    take_stored(stored_values, caches.ref_values, shape, false);
    for (int64_t row = 0; row < real; ++row) {
      std::copy_n(turned.begin() + row * width, query_width, query.begin() + row * query_width);
    }
    OnDevice<float> out(rows * query_width);
    const int32_t most = std::max(splits, kDecodeSplits);
    const size_t partials = most * rows * shape.heads;
    OnDevice<float> o(partials * shape.head_dim);
    OnDevice<float> m(partials);
    OnDevice<float> l(partials);
    const auto attend_to = [&](int64_t first, int64_t some, int64_t tiles, int32_t parted) {
      BatchView rest = batch;
      rest.tiles += first;
      if (some > 0) {
        attention(stream_.get(),
                  {{.f32 = out.data()},
                   on_device.data(),
                   cache,
                   rest,
                   shape,
                   {o.data(), m.data(), l.data()},
                   parted,
                   first},
                  tiles, some);
      }
    };
    attend_to(0, filled.decoding, filled.decoding, kDecodeSplits);
    attend_to(filled.decoding, rows - filled.decoding, filled.tiles - filled.decoding, splits);
    std::vector<float> expected(rows * query_width);  // 0 where a row stands nowhere
    reference_->attention(
        {reinterpret_cast<std::byte*>(expected.data()), DType::kF32, real, query_width},
        tensor(query, real), ref_cache, placement, shape);
    compare(result, out.read(stream_.get()), expected);
    o.read(stream_.get());
    m.read(stream_.get());
    l.read(stream_.get());
  }

  std::vector<float> floats(const OnDevice<std::byte>& cache, DType dtype) {
    const std::vector<std::byte> bytes = cache.read(stream_.get());
    const ConstTensor all{bytes.data(), dtype, 1,
                          static_cast<int64_t>(bytes.size()) / bytes_of(dtype)};
    std::vector<float> values(all.cols);
    for (int64_t i = 0; i < all.cols; ++i) {
      values[i] = all.at(0, i);
    }
    return values;
  }

  // Index in the reference's cache of index i of ours: keys lie across there.
  static int64_t reference_index(int64_t i, const HeadShape& shape, bool keys) {
    if (!keys) {
      return i;
    }
    const int64_t d = i % shape.head_dim;
    const int64_t slot = i / shape.head_dim % kBlockTokens;
    const int64_t block_head = i / shape.head_dim / kBlockTokens;
    return (block_head * shape.head_dim + d) * kBlockTokens + slot;
  }

  static void compare_stored(CheckResult& result, const std::vector<float>& got,
                             const std::vector<float>& expected, const HeadShape& shape,
                             bool keys) {
    std::vector<float> here;
    std::vector<float> there;
    for (size_t i = 0; i < got.size(); ++i) {
      const float other = expected[reference_index(static_cast<int64_t>(i), shape, keys)];
      if (std::isnan(got[i]) != std::isnan(other)) {
        throw Broken{"a slot was written that should not be, or the other way round"};
      }
      if (!std::isnan(other)) {
        here.push_back(got[i]);
        there.push_back(other);
      }
    }
    compare(result, here, there);
  }

  static void take_stored(const std::vector<float>& got, std::vector<float>& reference,
                          const HeadShape& shape, bool keys) {
    for (size_t i = 0; i < got.size(); ++i) {
      reference[reference_index(static_cast<int64_t>(i), shape, keys)] = got[i];
    }
  }

  std::vector<int32_t> draw(const std::vector<float>& logits, const std::vector<Draw>& draws) {
    const auto rows = static_cast<int64_t>(draws.size());
    const OnDevice<float> on_device(logits);
    const OnDevice<Draw> draws_on_device(draws);
    OnDevice<int32_t> tokens(draws.size());
    sample(stream_.get(), tokens.data(), on_device.data(), draws_on_device.data(), rows,
           static_cast<int64_t>(logits.size()) / rows);
    return tokens.read(stream_.get());
  }

  void check_greedy(CheckResult& result) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (const int64_t vocabulary : {1, 31, 512, 1700, large_ ? 128256 : 2100}) {
      constexpr int64_t kRows = 7;
      std::vector<float> logits = normal(kRows * vocabulary, 5);
      const auto row = [&](int64_t i) { return logits.begin() + i * vocabulary; };
      std::fill(row(1), row(2), -kInfinity);
      *(row(2) + vocabulary / 2) = std::numeric_limits<float>::quiet_NaN();
      *(row(3) + vocabulary - 1) = kInfinity;
      std::fill(row(4), row(5), 0.25F);  // all alike
      *(row(5) + vocabulary / 3) = *(row(5) + vocabulary - 1) = 100;
      std::for_each(row(6), row(7), [](float& v) { v = v > 0 ? 0.0F : -0.0F; });
      const std::vector<int32_t> got = draw(logits, std::vector<Draw>(kRows, {0.5, 0, 1, 0, 0}));
      for (int64_t i = 0; i < kRows; ++i) {
        const auto expected = llama::sample(std::span(logits).subspan(i * vocabulary, vocabulary),
                                            {.temperature = 0}, 0.5)
                                  .value_or(Runner::kNoToken);
        if (got[i] != expected) {
          throw Broken{"row " + std::to_string(i) + " of " + std::to_string(vocabulary) +
                       " tokens gave " + std::to_string(got[i]) + ", expected " +
                       std::to_string(expected)};
        }
        ++result.numbers;
      }
    }
  }

  // Rows with edits, with none, and with one of every token.
  void check_edits(CheckResult& result) {
    constexpr int64_t kRows = 4;
    const int64_t vocabulary = large_ ? 50257 : 1111;
    const std::vector<float> logits = normal(kRows * vocabulary, 5);
    std::vector<LogitEdit> edits = {{.token = 3, .penalty = 2}, {.token = 7, .add = -1.5F}};
    std::vector<int32_t> begins = {0, 2, 2};
    for (int32_t i = 0; i < vocabulary; ++i) {
      edits.push_back({.token = static_cast<int32_t>(vocabulary) - 1 - i,
                       .penalty = 1 + static_cast<float>(i % 5),
                       .add = static_cast<float>(i % 3)});
    }
    begins.push_back(static_cast<int32_t>(edits.size()));
    edits.push_back({.token = 0, .penalty = 0.5F, .add = -1e9F});
    begins.push_back(static_cast<int32_t>(edits.size()));
    std::vector<float> expected = logits;
    for (int64_t row = 0; row < kRows; ++row) {
      llama::edit(std::span(edits).subspan(begins[row], begins[row + 1] - begins[row]),
                  std::span(expected).subspan(row * vocabulary, vocabulary));
    }
    OnDevice<float> on_device(logits);
    OnDevice<LogitEdit> edits_on_device(edits);
    const OnDevice<int32_t> begins_on_device(begins);
    edit(stream_.get(), on_device.data(), edits_on_device.data(), begins_on_device.data(), kRows,
         vocabulary);
    compare(result, on_device.read(stream_.get()), expected);
    restore(stream_.get(), on_device.data(), edits_on_device.data(), begins_on_device.data(), kRows,
            vocabulary);
    const std::vector<float> again = on_device.read(stream_.get());
    if (again != logits) {
      throw Broken{"restore() did not put every logit back"};
    }
  }

  void check_scores(CheckResult& result) {
    const int64_t vocabulary = large_ ? 50257 : 1111;
    const std::vector<int32_t> tokens = {0, 500, Runner::kNoToken, 600};
    const std::vector<Draw> draws = {
        {.below = 0}, {.below = 700}, {.below = 0}, {.below = 1 << 20}};
    const auto rows = static_cast<int64_t>(tokens.size());
    std::vector<float> logits = normal(rows * vocabulary, 5);
    logits[vocabulary + 9] = -std::numeric_limits<float>::infinity();
    std::vector<float> expected;
    for (int64_t row = 0; row < rows; ++row) {
      expected.push_back(tokens[row] == Runner::kNoToken
                             ? 0
                             : logprob_of(std::span(logits).subspan(row * vocabulary, vocabulary),
                                          tokens[row], draws[row].below));
    }
    const OnDevice<float> on_device(logits);
    const OnDevice<int32_t> tokens_on_device(tokens);
    const OnDevice<Draw> draws_on_device(draws);
    OnDevice<float> logprobs(tokens.size());
    score(stream_.get(), logprobs.data(), tokens_on_device.data(), on_device.data(),
          draws_on_device.data(), rows, vocabulary);
    compare(result, logprobs.read(stream_.get()), expected);
  }

  // The same logits drawn from by numbers evenly spread over [0, 1): how often each token comes is
  // its probability, and differs from the CPU's count by one at most, by two for the rounding.
  // `worst` is in halves of that.
  void check_draws(CheckResult& result) {
    const int draws = large_ ? 96 : 40;
    const std::vector<Sampling> samplings = {
        {.temperature = 1},
        {.temperature = 0.3F},
        {.temperature = 2, .top_p = 0.5F},
        {.temperature = 1, .top_p = 0.9F},
        {.temperature = 1, .top_p = 0.05F},
        {.temperature = 1, .top_k = 5},
        {.temperature = 3, .top_p = 0.7F, .top_k = 11},
        {.temperature = 1, .top_k = 1},
        {.temperature = 1e-30F},
        {.temperature = 1, .below = 2},
        {.temperature = 1, .top_p = 0.9F, .top_k = 3, .below = 500},
        {.temperature = 0, .below = 600},
        {.temperature = 1, .min_p = 0.1F},
        {.temperature = 2, .top_p = 0.9F, .min_p = 0.3F},
        {.temperature = 2, .top_p = 0.3F, .min_p = 0.01F},
        {.temperature = 1, .top_k = 5, .min_p = 0.2F},
        {.temperature = 1, .below = 90, .min_p = 1},
        // Hundreds of tokens in the bin that the choice ends in, and more than there is room for.
        {.temperature = 100, .top_p = 0.6F},
        {.temperature = 100, .top_k = 77},
        {.temperature = 1e4F, .top_p = 0.4F},
        {.temperature = 1e4F, .top_k = 600, .below = 1100},
        {.temperature = 0.02F, .top_k = 50},
    };
    for (const int64_t vocabulary : {3, 700, large_ ? 50257 : 1111}) {
      for (const bool equals : {false, true}) {
        std::vector<float> logits = normal(vocabulary, 3);
        if (equals) {  // many the same, so that the set ends among equals
          std::for_each(logits.begin(), logits.end(), [](float& v) { v = std::round(v); });
        }
        logits[vocabulary / 2] = -std::numeric_limits<float>::infinity();
        for (const Sampling& sampling : samplings) {
          compare_draws(result, logits, sampling, draws);
        }
      }
    }
  }

  void compare_draws(CheckResult& result, const std::vector<float>& logits,
                     const Sampling& sampling, int count) {
    std::vector<float> all;
    std::vector<Draw> draws;
    std::map<int32_t, int> difference;
    for (int i = 0; i < count; ++i) {
      const double random = (i + 0.5) / count;
      all.insert(all.end(), logits.begin(), logits.end());
      draws.push_back({random, sampling.temperature, sampling.top_p, sampling.top_k, sampling.below,
                       reach_of(sampling), 0});
      --difference[llama::sample(logits, sampling, random).value()];
    }
    for (const int32_t token : draw(all, draws)) {
      ++difference[token];
    }
    for (const auto& [token, off] : difference) {
      result.worst = std::max(result.worst, std::abs(off) / 2.0);
      if (std::abs(off) > 2 && result.failure.empty()) {
        result.failure = "token " + std::to_string(token) + " came " + std::to_string(off) +
                         " times more often than on the CPU, temperature " +
                         std::to_string(sampling.temperature) + ", top_p " +
                         std::to_string(sampling.top_p) + ", top_k " +
                         std::to_string(sampling.top_k);
      }
      ++result.numbers;
    }
  }

  const bool large_;
  const unsigned seed_;
  std::mt19937 random_;
  std::function<bool(const std::string&)> wanted_;
  std::vector<std::string> names_;
  Stream stream_;
  std::unique_ptr<Backend> reference_ = reference_backend();
  std::vector<CheckResult> results_;
};

}  // namespace

std::vector<std::string> kernel_check_names() { return Checks(false, 0).names(); }

std::vector<CheckResult> run_kernel_checks(bool large, unsigned seed, const std::string& name) {
  try {
    return Checks(large, seed).run_one_or_all(name);
  } catch (const Broken& broken) {
    return {{.name = "start", .failure = broken.why}};
  }
}

}  // namespace penstock::llama::cuda
