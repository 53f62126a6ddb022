// What scripts/gpu-check runs on a machine with a GPU. Needs no file but those it is given, and is
// built from sources that need nothing but a C++ compiler and nvcc.
//
//     gpu_check device                        what answers here, one line
//     gpu_check self-test                     the check that a device must pass
//     gpu_check library                       which cuBLASLt answers
//     gpu_check nvml                          what NVML tells of it
//     gpu_check kernel-names                  the checks there are, one a line: needs no device
//     gpu_check kernels small|large [NAME]    every kernel, or one, against its reference
//     gpu_check tokens FLAT                   greedy tokens: CUDA, the CPU, and what the file says
//     gpu_check host FLAT                     the CPU's and the file's alone: needs no device
//     gpu_check decode, prompts, mixed, times how fast it is: speed.h
//     gpu_check fault                         an illegal access is named and ends the runner
//
// Prints rows of a table, `| what | measured | goal | ok |`. Exit status: 0 all ok, 1 not, 2 usage,
// 3 no device, 4 the check could not be made, and stderr says why.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/gpu/flat_model.h"
#include "tests/gpu/speed.h"
#include "tests/gpu/table.h"
#include "tests/unit/engines/llama/kernel_checks.h"
#include "worker/engines/llama/cuda/runner.h"
#include "worker/engines/llama/cuda/self_test.h"
#include "worker/engines/llama/kv_cache.h"
#include "worker/engines/llama/model.h"
#include "worker/nvml/nvml.h"

namespace penstock::llama {
namespace {

bool well = true;

}  // namespace

void row(const std::string& what, const std::string& measured, const std::string& goal, bool ok) {
  well = well && ok;
  std::printf("| %s | %s | %s | %s |\n", what.c_str(), measured.c_str(), goal.c_str(),
              ok ? "yes" : "**NO**");
  std::fflush(stdout);
}

void give_up(const Error& error) {
  std::fprintf(stderr, "gpu_check: %s\n", error.message.c_str());
  std::exit(4);
}

std::unique_ptr<cuda::CudaRunner> open(const FlatModel& model, const cuda::DeviceInfo& device,
                                       const cuda::CudaOptions& options) {
  auto library = cuda::open_cublaslt();
  if (!library) {
    std::fprintf(stderr, "gpu_check: %s\n", library.error().message.c_str());
  }
  return must(cuda::CudaRunner::make(model.files, device, library ? std::move(*library) : nullptr,
                                     options));
}

namespace {

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
    const auto drawn = must(runner.step(std::span(&part, 1)));
    if (i == 0) {
      greedy.first_logits = must(runner.last_logits());
    }
    position += static_cast<int32_t>(fed.size());
    greedy.tokens.push_back(drawn[0]);
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
  const FlatModel model = must(read_flat(path));
  const std::string name = path.substr(path.rfind('/') + 1);
  const auto exact = open(model, device, {.memory_bytes = 64 << 20, .max_parts = 8, .exact = true});
  const auto served = open(model, device, {.memory_bytes = 64 << 20, .max_parts = 8});
  size_t tokens = 0, of_cpu = 0, of_file = 0, rounded = 0;
  double worst = 0, worst_rounded = 0;
  for (const FlatCase& c : model.cases) {
    const size_t count = c.greedy.size();
    const Greedy cpu = on_cpu(model, c, count);
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
  const FlatModel model = must(read_flat(path));
  size_t tokens = 0, same = 0;
  for (const FlatCase& c : model.cases) {
    tokens += c.greedy.size();
    same += agreeing(on_cpu(model, c, c.greedy.size()).tokens, c.greedy);
  }
  row(path.substr(path.rfind('/') + 1) + ": greedy tokens on the CPU, as PyTorch's",
      text("%zu of %zu", same, tokens), "all", tokens > 0 && same == tokens);
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
  const FlatModel model = must(random_model(config, DType::kF32, 1));
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
  std::_Exit(well ? 0 : 1);  // what is on a lost device cannot be freed
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

// ---- what it stands on -----------------------------------------------------------------------

void check_library() {
  const auto library = cuda::open_cublaslt();
  row("cuBLASLt, which multiplies what has more than " + std::to_string(cuda::kGemvRows) + " rows",
      library ? (*library)->name() : library.error().message, "found", static_cast<bool>(library));
}

void check_kernels(const std::string& size, const std::string& name) {
  for (const cuda::CheckResult& r : cuda::run_kernel_checks(size == "large", 11, name)) {
    row(r.name,
        text("off by %.1e at most, of %lld numbers", r.worst, static_cast<long long>(r.numbers)) +
            (r.failure.empty() ? "" : "; " + r.failure),
        text("<= %.1e", r.tolerance), r.passed());
  }
}

int check(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == "host" && argc == 3) {
    check_host(argv[2]);
    return well ? 0 : 1;
  }
  if (command == "kernel-names") {
    for (const std::string& name : cuda::kernel_check_names()) {
      std::printf("%s\n", name.c_str());
    }
    return 0;
  }
  const std::span<char*> words(argv + std::min(argc, 3),
                               static_cast<size_t>(std::max(argc - 3, 0)));
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
  } else if (command == "library") {
    check_library();
  } else if (command == "kernels" && (argc == 3 || argc == 4)) {
    check_kernels(argv[2], argc == 4 ? argv[3] : "");
  } else if (command == "tokens" && argc == 3) {
    check_tokens(argv[2], *device);
  } else if (command == "decode" && argc > 3) {
    measure_decode(argv[2], words, *device);
  } else if (command == "prompts" && argc > 3) {
    measure_prompts(argv[2], words, *device);
  } else if (command == "mixed" && argc == 3) {
    measure_mixed(argv[2], *device);
  } else if (command == "times" && argc > 3) {
    measure_kernels(argv[2], words, *device);
  } else if (command == "self-test") {
    const Status tested = cuda::self_test(device->number);
    row("the check that a device must pass", tested ? "passed" : tested.error().message, "",
        static_cast<bool>(tested));
  } else if (command == "fault") {
    check_fault(*device);
  } else {
    std::fprintf(stderr,
                 "usage: gpu_check device|self-test|library|nvml|kernel-names|kernels small|large "
                 "[NAME]|tokens FLAT|host FLAT|decode MODEL [KEY=VALUE...] BATCH...|prompts MODEL "
                 "LENGTH...|mixed MODEL|times MODEL ROWS...|fault\n");
    return 2;
  }
  return well ? 0 : 1;
}

}  // namespace
}  // namespace penstock::llama

int main(int argc, char** argv) { return penstock::llama::check(argc, argv); }
