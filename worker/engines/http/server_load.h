// How busy a server says it is, in its /metrics (Prometheus's text format). Known are the names
// that vLLM, SGLang, TGI, llama.cpp and Triton use.
//
// Source: the documents of each on its metrics; the format is
// https://prometheus.io/docs/instrumenting/exposition_formats/.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock::http_engine {

struct ServerLoad {
  std::optional<uint64_t> running;  // requests, over all its models
  std::optional<uint64_t> waiting;  // in its own queue
  std::optional<double> kv_use;     // share of its cache, 0 to 1
  uint64_t kv_blocks = 0;           // that the cache has; 0: not told
};

// Reads a page of metrics. A line that cannot be read is passed over.
ServerLoad read_metrics(std::string_view text);

}  // namespace penstock::http_engine
