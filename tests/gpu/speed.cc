#include "tests/gpu/speed.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <vector>

#include "tests/gpu/bandwidth.h"
#include "tests/gpu/table.h"

namespace penstock::llama {
namespace {

constexpr double kGoalOfLimit = 0.7;  // BENCH.md, G2, at batch 1
constexpr int kRounds = 3;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begun) {
  return std::chrono::duration<double>(Clock::now() - begun).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

FlatModel model_of(const std::string& which) {
  return must(which == "1b"   ? random_model(shape_1b(), DType::kBF16, 1)
              : which == "8b" ? random_model(shape_8b(), DType::kBF16, 1)
                              : read_flat(which));
}

std::string short_name(const std::string& which) { return which.substr(which.rfind('/') + 1); }

// Opens it, says how long that took and what it left, and gives the host's copy back.
std::unique_ptr<cuda::CudaRunner> opened(const std::string& which, const cuda::DeviceInfo& device,
                                         const cuda::CudaOptions& options) {
  const FlatModel model = model_of(which);
  const auto begun = Clock::now();
  auto runner = open(model, device, options);
  row(short_name(which) + ": opening",
      text("%.2f s with %lld graphs; weights of %.2f GiB, a cache for %lld tokens, %.2f GiB left",
           seconds_since(begun), static_cast<long long>(runner->graphs()),
           static_cast<double>(runner->weight_bytes()) / (1 << 30),
           static_cast<long long>(runner->blocks().blocks() * kBlockTokens),
           static_cast<double>(must(cuda::free_bytes())) / (1 << 30)),
      "", true);
  return runner;
}

// Sequences that have been read, each one step further with every step().
class Batch {
 public:
  Batch(cuda::CudaRunner& runner, int64_t sequences, int64_t prompt, int64_t answer,
        Sampling sampling)
      : runner_(runner), sampling_(sampling) {
    for (int64_t i = 0; i < sequences; ++i) {
      blocks_.push_back(runner.blocks().take(BlockPool::blocks_for(prompt + answer)));
      if (blocks_.back().empty()) {
        give_up({"the cache is too small for " + std::to_string(sequences) + " sequences"});
      }
      std::vector<int32_t> tokens(prompt);
      for (int64_t j = 0; j < prompt; ++j) {
        tokens[j] = static_cast<int32_t>((i * 7919 + j * 104729 + 1) % runner.config().vocabulary);
      }
      read(i, tokens);
    }
  }
  ~Batch() {
    for (const auto& blocks : blocks_) {
      runner_.blocks().give_back(blocks);
    }
  }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  // `beside`: a part of a prompt that is read in the same step; null: none.
  void step(const SequencePart* beside = nullptr) {
    std::vector<SequencePart> parts;
    for (size_t i = 0; i < last_.size(); ++i) {
      parts.push_back({std::span(&last_[i], 1), positions_[i], blocks_[i], true, sampling_, 0.5});
      ++positions_[i];
    }
    if (beside != nullptr) {
      parts.push_back(*beside);
    }
    const auto drawn = must(runner_.step(parts));
    last_.assign(drawn.begin(), drawn.begin() + static_cast<std::ptrdiff_t>(last_.size()));
  }

 private:
  void read(int64_t sequence, std::span<const int32_t> tokens) {
    int32_t position = 0;
    std::span<const int32_t> drawn;
    while (!tokens.empty()) {
      const auto some = std::min(tokens.size(), static_cast<size_t>(runner_.prefill_tokens()));
      const SequencePart part{tokens.first(some),
                              position,
                              blocks_[sequence],
                              some == tokens.size(),
                              {.temperature = 0}};
      drawn = must(runner_.step(std::span(&part, 1)));
      position += static_cast<int32_t>(some);
      tokens = tokens.subspan(some);
    }
    positions_.push_back(position);
    last_.push_back(drawn[0]);
  }

  cuda::CudaRunner& runner_;
  const Sampling sampling_;
  std::vector<std::vector<int32_t>> blocks_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> last_;
};

struct DecodeSettings {
  int64_t context = 128;
  float top_p = 1;
  bool graphs = true;
  std::vector<int64_t> batches;

  std::string in_words() const {
    return (context != 128 ? text(", %lld tokens before", static_cast<long long>(context)) : "") +
           (top_p < 1 ? text(", top_p %.2f", top_p) : "") + (graphs ? "" : ", without graphs");
  }
};

DecodeSettings settings_of(std::span<char*> words) {
  DecodeSettings settings;
  for (const std::string word : words) {
    const size_t equals = word.find('=');
    const std::string key = word.substr(0, equals);
    const std::string value = equals == word.npos ? word : word.substr(equals + 1);
    if (equals == word.npos) {
      settings.batches.push_back(std::max(1LL, std::atoll(value.c_str())));
    } else if (key == "context") {
      settings.context = std::max(1LL, std::atoll(value.c_str()));
    } else if (key == "top_p") {
      settings.top_p = std::strtof(value.c_str(), nullptr);
    } else if (key == "graphs") {
      settings.graphs = value != "off";
    } else {
      give_up({"decode has no setting " + word + "; it has context=, top_p= and graphs="});
    }
  }
  return settings;
}

}  // namespace

void measure_decode(const std::string& which, std::span<char*> words,
                    const cuda::DeviceInfo& device) {
  constexpr int kWarm = 8;
  constexpr int kSteps = 96;
  const DecodeSettings settings = settings_of(words);
  const std::string name = short_name(which);
  const double bandwidth = must(cuda::read_bandwidth());
  row("memory read by a plain kernel", text("%.0f GB/s", bandwidth / 1e9), "", true);
  const int64_t most = *std::max_element(settings.batches.begin(), settings.batches.end());
  const auto runner = opened(which, device, {.max_parts = most, .graphs = settings.graphs});
  const ModelConfig& config = runner->config();
  const int64_t gathered = config.tied_embeddings ? 0 : config.vocabulary * config.hidden * 2;
  const double kv_bytes = static_cast<double>(runner->block_bytes()) / kBlockTokens;
  const Sampling sampling{.temperature = settings.top_p < 1 ? 1.0F : 0.0F, .top_p = settings.top_p};
  for (const int64_t batch : settings.batches) {
    Batch sequences(*runner, batch, settings.context, kRounds * (kWarm + kSteps) + 1, sampling);
    std::vector<double> rates;
    for (int round = 0; round < kRounds; ++round) {
      for (int i = 0; i < kWarm; ++i) {
        sequences.step();
      }
      const auto begun = Clock::now();
      for (int i = 0; i < kSteps; ++i) {
        sequences.step();
      }
      rates.push_back(static_cast<double>(batch * kSteps) / seconds_since(begun));
    }
    const double rate = median(rates);
    // Every weight, and every cached token of every sequence, is read once a step.
    const double cached = static_cast<double>(settings.context) + kRounds * (kWarm + kSteps) / 2.0;
    const double bytes = static_cast<double>(runner->weight_bytes() - gathered) +
                         static_cast<double>(batch) * cached * kv_bytes;
    const double limit = static_cast<double>(batch) * bandwidth / bytes;
    // 1B is shown: a kernel for each operation cannot reach it there.
    const bool held = which == "8b" && batch == 1 && settings.in_words().empty();
    row(text("%s: decode, batch %lld", name.c_str(), static_cast<long long>(batch)) +
            settings.in_words(),
        text("%.1f tokens/s, %.2f of the memory's limit %.1f", rate, rate / limit, limit),
        held ? text(">= %.1f of the limit (G2)", kGoalOfLimit) : "",
        !held || rate >= kGoalOfLimit * limit);
  }
}

void measure_prompts(const std::string& which, std::span<char*> lengths,
                     const cuda::DeviceInfo& device) {
  const auto runner = opened(which, device, {.max_parts = 8});
  for (const char* argument : lengths) {
    const int64_t length = std::max(1LL, std::atoll(argument));
    std::vector<double> times;
    for (int round = 0; round < kRounds; ++round) {
      const auto begun = Clock::now();
      const Batch read(*runner, 1, length, 1, {.temperature = 0});
      times.push_back(seconds_since(begun));
    }
    row(text("%s: a prompt of %lld tokens, alone", short_name(which).c_str(),
             static_cast<long long>(length)),
        text("%.0f tokens/s, %.1f ms to the first token; the first time %.1f ms",
             static_cast<double>(length) / median(times), median(times) * 1e3, times[0] * 1e3),
        "", true);
  }
}

void measure_mixed(const std::string& which, const cuda::DeviceInfo& device) {
  constexpr int64_t kBatch = 16;
  constexpr int64_t kContext = 4096;
  constexpr int kSteps = 8;
  const auto runner = opened(which, device, {.max_parts = kBatch + 1});
  Batch sequences(*runner, kBatch, kContext, 3 * kSteps, {.temperature = 0});
  const auto prompt_blocks =
      runner->blocks().take(BlockPool::blocks_for(kSteps * runner->prefill_tokens()));
  if (prompt_blocks.empty()) {
    give_up({"the cache is too small for a prompt beside " + std::to_string(kBatch) +
             " sequences of " + std::to_string(kContext) + " tokens"});
  }
  const std::vector<int32_t> prompt(static_cast<size_t>(runner->prefill_tokens()), 1);
  std::vector<double> alone, mixed;
  for (int i = 0; i < kSteps; ++i) {
    const auto begun = Clock::now();
    sequences.step();
    alone.push_back(seconds_since(begun));
  }
  for (int i = 0; i < kSteps; ++i) {
    const SequencePart part{prompt, static_cast<int32_t>(i * runner->prefill_tokens()),
                            prompt_blocks};
    const auto begun = Clock::now();
    sequences.step(&part);
    mixed.push_back(seconds_since(begun));
  }
  runner->blocks().give_back(prompt_blocks);
  row(text("%s: a step of %lld sequences after %lld tokens each, and beside %lld of a prompt",
           short_name(which).c_str(), static_cast<long long>(kBatch),
           static_cast<long long>(kContext), static_cast<long long>(runner->prefill_tokens())),
      text("%.2f and %.2f ms; the first of the latter %.2f ms", median(alone) * 1e3,
           median(mixed) * 1e3, mixed[0] * 1e3),
      "", true);
}

}  // namespace penstock::llama
