// What scripts/gpu-check runs on a machine with a GPU. Needs no file but those it is given, and is
// built from sources that need nothing but a C++ compiler and nvcc.
//
//     gpu_check device                     what answers here, one line
//     gpu_check nvml                       what NVML tells of it
//     gpu_check kernels                    every kernel against its reference
//     gpu_check tokens FLAT                greedy tokens: CUDA, the CPU, and what the file says
//     gpu_check host FLAT                  the CPU's and the file's alone: needs no device
//     gpu_check decode 1b|8b|FLAT BATCH... tokens a second beside what memory allows
//     gpu_check fault                      an illegal access is named and ends the runner
//
// Prints rows of a table, `| what | measured | goal | ok |`. Exit status: 0 all ok, 1 not, 2 usage,
// 3 no device.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/gpu/bandwidth.h"
#include "tests/gpu/flat_model.h"
#include "tests/unit/engines/llama/kernel_checks.h"
#include "worker/engines/llama/cuda/runner.h"
#include "worker/engines/llama/cuda/self_test.h"
#include "worker/engines/llama/kv_cache.h"
#include "worker/engines/llama/model.h"
#include "worker/nvml/nvml.h"

namespace penstock::llama {
namespace {

constexpr double kGoalOfLimit = 0.7;  // BENCH.md, G2, at batch 1

bool all_ok = true;

void row(const std::string& what, const std::string& measured, const std::string& goal, bool ok) {
  all_ok = all_ok && ok;
  std::printf("| %s | %s | %s | %s |\n", what.c_str(), measured.c_str(), goal.c_str(),
              ok ? "yes" : "**NO**");
  std::fflush(stdout);
}

template <typename... Args>
std::string text(const char* format, Args... args) {
  char buffer[512];
  std::snprintf(buffer, sizeof buffer, format, args...);
  return buffer;
}

[[noreturn]] void give_up(const Error& error) {
  std::fprintf(stderr, "gpu_check: %s\n", error.message.c_str());
  std::exit(1);
}

std::unique_ptr<cuda::CudaRunner> open(const FlatModel& model, const cuda::DeviceInfo& device,
                                       const cuda::CudaOptions& options) {
  auto library = cuda::open_cublaslt();
  if (!library) {
    std::fprintf(stderr, "gpu_check: %s\n", library.error().message.c_str());
  }
  auto runner =
      cuda::CudaRunner::make(model.files, device, library ? std::move(*library) : nullptr, options);
  if (!runner) {
    give_up(runner.error());
  }
  return std::move(*runner);
}

// ---- tokens ------------------------------------------------------------------------------------

int32_t best_of(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

struct Greedy {
  std::vector<int32_t> tokens;
  std::vector<float> first_logits;  // after the prompt
};

Greedy on_cpu(const FlatModel& model, const FlatCase& c, size_t count) {
  const auto backend = cpu_backend(8);
  auto made = Model::make(model.files, *backend);
  auto cache = KvCache::create(model.files.config, 64 << 20, *backend);
  if (!made || !cache) {
    give_up(made ? cache.error() : made.error());
  }
  const auto blocks =
      cache->take(BlockPool::blocks_for(static_cast<int64_t>(c.prompt.size() + count)));
  Greedy greedy;
  std::vector<int32_t> fed = c.prompt;
  int32_t position = 0;
  for (size_t i = 0; i < count; ++i) {
    const SequencePart part{fed, position, blocks, true};
    const auto logits = made->forward(std::span(&part, 1), *cache);
    if (i == 0) {
      greedy.first_logits.assign(logits->begin(), logits->end());
    }
    position += static_cast<int32_t>(fed.size());
    greedy.tokens.push_back(best_of(*logits));
    fed = {greedy.tokens.back()};
  }
  return greedy;
}

Greedy on_cuda(cuda::CudaRunner& runner, const FlatCase& c, size_t count) {
  const auto blocks =
      runner.blocks().take(BlockPool::blocks_for(static_cast<int64_t>(c.prompt.size() + count)));
  Greedy greedy;
  std::vector<int32_t> fed = c.prompt;
  int32_t position = 0;
  for (size_t i = 0; i < count; ++i) {
    const SequencePart part{fed, position, blocks, true, {.temperature = 0}};
    const auto drawn = runner.step(std::span(&part, 1));
    if (!drawn) {
      give_up(drawn.error());
    }
    if (i == 0) {
      greedy.first_logits = *runner.last_logits();
    }
    position += static_cast<int32_t>(fed.size());
    greedy.tokens.push_back((*drawn)[0]);
    fed = {greedy.tokens.back()};
  }
  runner.blocks().give_back(blocks);
  return greedy;
}

double worst_of(const Greedy& a, const Greedy& b) {
  double worst = 0;
  double size = 0;
  for (size_t i = 0; i < a.first_logits.size(); ++i) {
    const double off = std::fabs(static_cast<double>(a.first_logits[i]) - b.first_logits[i]);
    worst = off <= worst ? worst : off;  // NaN, too, is the worst
    size = std::max(size, std::fabs(static_cast<double>(b.first_logits[i])));
  }
  return worst / size;
}

size_t agreeing(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const auto [end, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<size_t>(end - a.begin());
}

void check_tokens(const std::string& path, const cuda::DeviceInfo& device) {
  auto model = read_flat(path);
  if (!model) {
    give_up(model.error());
  }
  const std::string name = path.substr(path.rfind('/') + 1);
  const auto exact =
      open(*model, device, {.memory_bytes = 64 << 20, .max_parts = 8, .exact = true});
  const auto served = open(*model, device, {.memory_bytes = 64 << 20, .max_parts = 8});
  size_t tokens = 0, of_cpu = 0, of_file = 0, rounded = 0;
  double worst = 0, worst_rounded = 0;
  for (const FlatCase& c : model->cases) {
    const size_t count = c.greedy.size();
    const Greedy cpu = on_cpu(*model, c, count);
    const Greedy same = on_cuda(*exact, c, count);
    const Greedy fast = on_cuda(*served, c, count);
    tokens += count;
    of_cpu += agreeing(same.tokens, cpu.tokens);
    of_file += agreeing(same.tokens, c.greedy);
    rounded += agreeing(fast.tokens, cpu.tokens);
    worst = std::max(worst, worst_of(same, cpu));
    worst_rounded = std::max(worst_rounded, worst_of(fast, cpu));
  }
  row(name + ": greedy tokens, exact, as the CPU's and PyTorch's",
      text("%zu and %zu of %zu", of_cpu, of_file, tokens), "all",
      tokens > 0 && of_cpu == tokens && of_file == tokens);
  row(name + ": logits off the CPU's, exact", text("%.1e of the largest", worst), "<= 1e-3",
      worst <= 1e-3);
  row(name + ": logits off the CPU's, as served",
      text("%.1e of the largest; %zu of %zu tokens the same", worst_rounded, rounded, tokens),
      "<= 3e-2", worst_rounded <= 3e-2);
}

void check_host(const std::string& path) {
  auto model = read_flat(path);
  if (!model) {
    give_up(model.error());
  }
  size_t tokens = 0, same = 0;
  for (const FlatCase& c : model->cases) {
    tokens += c.greedy.size();
    same += agreeing(on_cpu(*model, c, c.greedy.size()).tokens, c.greedy);
  }
  row(path.substr(path.rfind('/') + 1) + ": greedy tokens on the CPU, as PyTorch's",
      text("%zu of %zu", same, tokens), "all", tokens > 0 && same == tokens);
}

// ---- decode ------------------------------------------------------------------------------------

class Batch {
 public:
  Batch(cuda::CudaRunner& runner, int64_t sequences, int64_t prompt, int64_t answer)
      : runner_(runner) {
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

  void step() {
    std::vector<SequencePart> parts;
    for (size_t i = 0; i < last_.size(); ++i) {
      parts.push_back(
          {std::span(&last_[i], 1), positions_[i], blocks_[i], true, {.temperature = 0}});
      ++positions_[i];
    }
    const auto drawn = runner_.step(parts);
    if (!drawn) {
      give_up(drawn.error());
    }
    last_.assign(drawn->begin(), drawn->end());
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
      const auto got = runner_.step(std::span(&part, 1));
      if (!got) {
        give_up(got.error());
      }
      drawn = *got;
      position += static_cast<int32_t>(some);
      tokens = tokens.subspan(some);
    }
    positions_.push_back(position);
    last_.push_back(drawn[0]);
  }

  cuda::CudaRunner& runner_;
  std::vector<std::vector<int32_t>> blocks_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> last_;
};

double seconds_since(std::chrono::steady_clock::time_point begun) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

void bench_decode(const std::string& which, std::span<char*> batches,
                  const cuda::DeviceInfo& device) {
  constexpr int64_t kPrompt = 128;
  constexpr int kWarm = 8;
  constexpr int kSteps = 96;
  constexpr int kRounds = 3;
  auto read = which == "1b"   ? Result<FlatModel>(random_model(shape_1b(), DType::kBF16, 1))
              : which == "8b" ? Result<FlatModel>(random_model(shape_8b(), DType::kBF16, 1))
                              : read_flat(which);
  if (!read) {
    give_up(read.error());
  }
  const auto bandwidth = cuda::read_bandwidth();
  if (!bandwidth) {
    give_up(bandwidth.error());
  }
  const ModelConfig config = read->files.config;
  const std::string name = which.substr(which.rfind('/') + 1);
  row("memory read by a plain kernel", text("%.0f GB/s", *bandwidth / 1e9), "", true);
  int64_t most = 1;
  for (const char* batch : batches) {
    most = std::max<int64_t>(most, std::atoll(batch));
  }
  const auto runner = open(*read, device, {.max_parts = most});
  read = Error{"given back"};  // the host's copy
  const int64_t gathered = config.tied_embeddings ? 0 : config.vocabulary * config.hidden * 2;
  const double kv_bytes = static_cast<double>(runner->block_bytes()) / kBlockTokens;
  for (const char* argument : batches) {
    const int64_t batch = std::atoll(argument);
    std::vector<double> rates;
    for (int round = 0; round < kRounds; ++round) {
      Batch sequences(*runner, batch, kPrompt, kWarm + kSteps + 1);
      for (int i = 0; i < kWarm; ++i) {
        sequences.step();
      }
      const auto begun = std::chrono::steady_clock::now();
      for (int i = 0; i < kSteps; ++i) {
        sequences.step();
      }
      rates.push_back(static_cast<double>(batch * kSteps) / seconds_since(begun));
    }
    std::sort(rates.begin(), rates.end());
    const double rate = rates[kRounds / 2];
    // Every weight, and every cached token of every sequence, is read once a step.
    const double bytes = static_cast<double>(runner->weight_bytes() - gathered) +
                         static_cast<double>(batch) * (kPrompt + kWarm + kSteps / 2.0) * kv_bytes;
    const double limit = static_cast<double>(batch) * *bandwidth / bytes;
    row(text("%s: decode, batch %lld", name.c_str(), static_cast<long long>(batch)),
        text("%.1f tokens/s, %.2f of the memory's limit %.1f", rate, rate / limit, limit),
        batch == 1 ? text(">= %.1f of the limit (G2)", kGoalOfLimit) : "",
        batch > 1 || rate >= kGoalOfLimit * limit);
  }
}

// ---- fault -------------------------------------------------------------------------------------

void check_fault(const cuda::DeviceInfo& device) {
  ModelConfig config = shape_1b();
  config.hidden = 64;
  config.intermediate = 96;
  config.layers = 1;
  config.heads = config.kv_heads = 2;
  config.head_dim = 32;
  config.vocabulary = 100;
  config.max_positions = 64;
  const FlatModel model = random_model(config, DType::kF32, 1);
  const auto runner = open(model, device, {.max_parts = 2});
  const auto blocks = runner->blocks().take(1);
  const int32_t token = 1;
  std::string first, second;
  for (int32_t position = 0; position < 16 && second.empty(); ++position) {
    const SequencePart part{std::span(&token, 1), position, blocks, true};
    const auto drawn = runner->step(std::span(&part, 1));
    if (!drawn) {
      (first.empty() ? first : second) = drawn.error().message;
    }
  }
  row("an illegal access, injected", first.empty() ? "went unnoticed" : first,
      "named, and every later step fails",
      first.find("cudaErrorIllegalAddress") != std::string::npos && !second.empty());
  std::fflush(stdout);
  std::_Exit(all_ok ? 0 : 1);  // what is on a lost device cannot be freed
}

// ---- NVML --------------------------------------------------------------------------------------

// The device that CUDA runs on is among those that NVML tells of: its memory is as large to both.
void check_nvml(const cuda::DeviceInfo& device) {
  constexpr double kGiB = 1 << 30;
  const std::string goal = text("every figure; memory within 5 %% of CUDA's %.1f GiB",
                                static_cast<double>(device.total_bytes) / kGiB);
  auto opened = nvml::Nvml::open("libnvidia-ml.so.1");
  auto* nvml = std::get_if<nvml::Nvml>(&opened);
  const auto readings = nvml == nullptr
                            ? Result<std::vector<nvml::Reading>>(Error{"it does not open"})
                            : nvml->read();
  if (!readings) {
    return row("NVML", readings.error().message, goal, false);
  }
  bool found = false;
  for (const nvml::Reading& each : *readings) {
    const double off = std::abs(
        static_cast<double>(each.memory_total_bytes) / static_cast<double>(device.total_bytes) - 1);
    if (off > 0.05) {
      continue;  // another one
    }
    found = true;
    const std::string measured = text("%llu %%, %.1f of %.1f GiB, %llu C, %.1f W",
                                      static_cast<unsigned long long>(each.utilization_percent),
                                      static_cast<double>(each.memory_used_bytes) / kGiB,
                                      static_cast<double>(each.memory_total_bytes) / kGiB,
                                      static_cast<unsigned long long>(each.temperature_celsius),
                                      static_cast<double>(each.power_mw) / 1000);
    row("NVML: " + each.name + " " + each.uuid,
        measured + (each.message.empty() ? "" : "; ") + each.message, goal,
        each.health == wire::DeviceHealth::kGood && each.known == 15);
  }
  if (!found) {
    row("NVML", "tells of no such device", goal, false);
  }
}

int check(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == "host" && argc == 3) {
    check_host(argv[2]);
    return all_ok ? 0 : 1;
  }
  const auto device = cuda::use_device(0);
  if (!device) {
    std::fprintf(stderr, "gpu_check: %s\n", device.error().message.c_str());
    return 3;
  }
  if (command == "device") {
    std::printf("%s, %lld multiprocessors, %.0f GiB\n", device->name.c_str(),
                static_cast<long long>(device->processors),
                static_cast<double>(device->total_bytes) / (1 << 30));
  } else if (command == "nvml") {
    check_nvml(*device);
  } else if (command == "kernels") {
    for (const cuda::CheckResult& r : cuda::run_kernel_checks(true, 11)) {
      row(r.name,
          text("off by %.1e at most, of %lld numbers", r.worst, static_cast<long long>(r.numbers)) +
              (r.failure.empty() ? "" : "; " + r.failure),
          text("<= %.1e", r.tolerance), r.passed());
    }
  } else if (command == "tokens" && argc == 3) {
    check_tokens(argv[2], *device);
  } else if (command == "decode" && argc > 3) {
    bench_decode(argv[2], std::span(argv + 3, static_cast<size_t>(argc - 3)), *device);
  } else if (command == "self-test") {
    const Status tested = cuda::self_test(device->number);
    row("the check that a device must pass", tested ? "passed" : tested.error().message, "",
        static_cast<bool>(tested));
  } else if (command == "fault") {
    check_fault(*device);
  } else {
    std::fprintf(stderr,
                 "usage: gpu_check device|self-test|nvml|kernels|tokens FLAT|host FLAT|decode NAME "
                 "BATCH...|fault\n");
    return 2;
  }
  return all_ok ? 0 : 1;
}

}  // namespace
}  // namespace penstock::llama

int main(int argc, char** argv) { return penstock::llama::check(argc, argv); }
