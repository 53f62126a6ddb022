#include "worker/queue/config/traces_keys.h"

#include "worker/queue/config/webhook_target.h"

namespace penstock::queue {

TracesConfig read_traces(const YAML::Node& node, Complaints& complaints) {
  TracesConfig traces;
  if (!node.IsDefined()) {
    return traces;
  }
  Section section(node, "traces", complaints);
  section.text("url", traces.url);
  const bool http = traces.url.starts_with("http://") || traces.url.starts_with("https://");
  if (!http || host_of(traces.url).empty() || traces.url.size() > WebhookTargets::kMaxUrlBytes) {
    section.complain("url",
                     "must be a collector's URL for traces by OTLP/HTTP, like "
                     "http://127.0.0.1:4318/v1/traces");
  }
  const YAML::Node sample = section.take("sample");
  const std::string text = sample.IsDefined() && sample.IsScalar() ? sample.Scalar() : "";
  if (text == "parent" || !sample.IsDefined()) {
    section.note("sample", "parent");
  } else {
    section.fraction("sample", traces.roots, 0, 1);
  }
  section.done();
  return traces;
}

}  // namespace penstock::queue
