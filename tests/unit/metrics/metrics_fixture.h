// The vocabulary of the metrics' tests: a registry in memory that forked children share.
#pragma once

#include <algorithm>
#include <barrier>
#include <functional>
#include <set>
#include <string_view>
#include <thread>
#include <vector>

#include "shared/metrics/registry.h"
#include "tests/unit/limit/limit_fixture.h"

namespace penstock::metrics {

class RegistryMemory {
 public:
  RegistryMemory(size_t series, size_t stripes) : memory_(Registry::bytes_for(series, stripes)) {
    auto registry = Registry::create(memory_.bytes(), series, stripes);
    EXPECT_TRUE(registry) << registry.error().message;
    registry_ = *registry;
  }

  Registry registry() const { return registry_; }
  std::span<std::byte> bytes() const { return memory_.bytes(); }

 private:
  limit::SharedMemory memory_;
  Registry registry_;
};

inline uint32_t id_of(Registry& registry, std::string_view text) {
  auto id = registry.series(text);
  EXPECT_TRUE(id) << id.error().message;
  return id ? *id : kNoSeries;
}

// Runs work(0) ... work(count - 1) at the same time: none begins before all are there.
inline void in_threads(unsigned count, const std::function<void(unsigned)>& work) {
  std::barrier gate(count);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      gate.arrive_and_wait();
      work(i);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace penstock::metrics
