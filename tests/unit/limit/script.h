// Lets a test stop one request at any of its steps: the table's sync points.
#pragma once

#include <functional>
#include <vector>

#include "tests/unit/limit/limit_fixture.h"

namespace penstock::limit {

// Counts the steps of the request at each depth, and starts the next request at a chosen one: from
// start to end, as if the first process had been stopped there.
struct Script {
  std::vector<unsigned> stops;  // stops[depth]: the step at which the request there is interrupted
  std::vector<unsigned> steps;
  std::function<void(size_t depth)> request;
  size_t depth = 0;
  unsigned interrupted = 0;

  static inline Script* running = nullptr;

  void run() {
    steps.assign(stops.size() + 1, 0);
    running = this;
    request(0);
    running = nullptr;
  }
  void step() {
    if (depth < stops.size() && steps[depth]++ == stops[depth]) {
      ++depth;
      ++interrupted;
      request(depth);
      --depth;
    }
  }
};

struct ScriptSync {
  static void at(Point) {
    if (Script::running != nullptr) {
      Script::running->step();
    }
  }
};

using TestTable = BasicTable<ScriptSync>;

}  // namespace penstock::limit
