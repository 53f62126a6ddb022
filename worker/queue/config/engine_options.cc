#include "worker/queue/config/engine_options.h"

namespace penstock::queue {

void refuse_keys_of(const std::string& engine, std::initializer_list<const char*> keys,
                    Section& section, const WorkerConfig& worker) {
  for (const char* const key : keys) {
    if (section.take(key).IsDefined()) {
      section.complain(key, "is for engine " + engine + ", and this worker's is " + worker.engine);
    }
  }
}

void add_duration(Section& section, const std::string& key, int64_t least_ns, WorkerConfig& worker,
                  const std::string& prefix) {
  if (!section.given(key)) {
    return;
  }
  int64_t ns = 0;
  section.duration(key, ns, least_ns);
  worker.options.emplace_back(prefix + key + "_ns", std::to_string(ns));
}

void add_size(Section& section, const std::string& key, int64_t least, int64_t most,
              WorkerConfig& worker) {
  if (!section.given(key)) {
    return;
  }
  int64_t bytes = least;
  section.size(key, bytes, least, most);
  worker.options.emplace_back(key, std::to_string(bytes));
}

}  // namespace penstock::queue
