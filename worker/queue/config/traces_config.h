// traces: where spans go, and of which jobs.
#pragma once

#include <string>

namespace penstock::queue {

struct TracesConfig {
  std::string url;   // OTLP/HTTP: "http://127.0.0.1:4318/v1/traces"; empty: spans go nowhere
  double roots = 0;  // of requests that come with no trace, this part begins a sampled one
  bool operator==(const TracesConfig&) const = default;
  bool on() const { return !url.empty(); }
};

}  // namespace penstock::queue
