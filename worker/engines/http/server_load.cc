#include "worker/engines/http/server_load.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace penstock::http_engine {
namespace {

constexpr double kMostRequests = 1e9;

enum class Figure : uint8_t { kRunning, kWaiting, kKvUse };
struct Known {
  std::string_view name;
  Figure figure;
};
constexpr Known kKnown[] = {
    {"vllm:num_requests_running", Figure::kRunning},
    {"vllm:num_requests_waiting", Figure::kWaiting},
    {"vllm:gpu_cache_usage_perc", Figure::kKvUse},
    {"vllm:kv_cache_usage_perc", Figure::kKvUse},
    {"sglang:num_running_reqs", Figure::kRunning},
    {"sglang:num_queue_reqs", Figure::kWaiting},
    {"sglang:token_usage", Figure::kKvUse},
    {"tgi_batch_current_size", Figure::kRunning},
    {"tgi_queue_size", Figure::kWaiting},
    {"llamacpp:requests_processing", Figure::kRunning},
    {"llamacpp:requests_deferred", Figure::kWaiting},
    {"llamacpp:kv_cache_usage_ratio", Figure::kKvUse},
    {"nv_inference_pending_request_count", Figure::kWaiting},
};

void add(std::optional<uint64_t>& sum, double value) {
  if (value >= 0 && value <= kMostRequests) {
    sum = sum.value_or(0) + static_cast<uint64_t>(value);
  }
}

void take(Figure figure, double value, ServerLoad& load) {
  if (figure == Figure::kRunning) {
    add(load.running, value);
  } else if (figure == Figure::kWaiting) {
    add(load.waiting, value);
  } else if (value >= 0 && value <= 1) {
    load.kv_use = std::max(load.kv_use.value_or(0), value);
  }
}

// vllm:cache_config_info{...,num_gpu_blocks="27465",...} 1
void take_blocks(std::string_view line, ServerLoad& load) {
  constexpr std::string_view kLabel = "num_gpu_blocks=\"";
  const size_t at = line.find(kLabel);
  if (line.starts_with("vllm:cache_config_info{") && at != line.npos) {
    std::from_chars(line.data() + at + kLabel.size(), line.data() + line.size(), load.kv_blocks);
  }
}

void take_line(std::string_view line, ServerLoad& load) {
  const std::string_view name = line.substr(0, line.find_first_of("{ "));
  const auto known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                  [&](const Known& each) { return each.name == name; });
  if (known == std::end(kKnown)) {
    return take_blocks(line, load);
  }
  size_t at = name.size();
  if (at < line.size() && line[at] == '{') {
    at = std::min(line.rfind('}'), line.size() - 1) + 1;
  }
  at = std::min(line.find_first_not_of(' ', at), line.size());
  double value = 0;
  if (std::from_chars(line.data() + at, line.data() + line.size(), value).ec == std::errc{} &&
      std::isfinite(value)) {
    take(known->figure, value, load);
  }
}

}  // namespace

ServerLoad read_metrics(std::string_view text) {
  ServerLoad load;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    take_line(text.substr(0, end), load);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return load;
}

}  // namespace penstock::http_engine
