// `slots: auto`: which limit it ends at on simulated devices, how much of the best throughput that
// gives, and how long it takes.
//
//   knee     where more slots stop to be worth it
//   limit    mean limit once settled, with all that is tried
//   of best  throughput meanwhile, as a share of the best that any limit gives
//   settled  when it first rested: in service times of a job at the knee, and in jobs
#include <cmath>
#include <cstdio>

#include "tests/unit/queue/bound/simulated_device.h"

namespace penstock::queue {
namespace {

constexpr double kStepNs = 20e6;

struct Scenario {
  const char* name;
  uint32_t knee;
  uint32_t most;
  std::function<double(uint32_t)> takes_ns;
};

void row(const Scenario& of, const char* sizes, Sizes kind, bool size_is_work) {
  AdaptiveSlots slots(of.most);
  SimulatedDevice device(slots);
  device.takes_ns = of.takes_ns;
  device.sizes = kind;
  device.size_is_work = size_is_work;
  while (!slots.resting() && device.ended < 2'000'000) {
    device.run_jobs(1);
  }
  const double settled = static_cast<double>(device.now()) / of.takes_ns(of.knee);
  const uint64_t jobs = device.ended;
  device.reset();
  device.run_jobs(400'000);
  double best = 0;
  for (uint32_t l = 1; l <= of.most; ++l) {
    best = std::max(best, l / of.takes_ns(l));
  }
  std::printf("%-22s %-16s %5u %8.1f %8.1f %% %10.0f %9llu  %s\n", of.name, sizes, of.knee,
              device.mean_limit(), 100 * device.work_per_ns() / best, settled,
              static_cast<unsigned long long>(jobs), slots.say().c_str());
}

// How long until the limit is within a fifth of a knee that has moved: of 41 runs, the median and
// the slowest but two.
void follow(Sizes kind, const char* sizes) {
  const std::vector<uint32_t> knees = {8, 32, 4, 64, 8};
  std::vector<std::vector<double>> took(knees.size());
  for (uint64_t seed = 1; seed <= 41; ++seed) {
    AdaptiveSlots slots(1024);
    SimulatedDevice device(slots);
    device.random.seed(seed);
    device.sizes = kind;
    for (size_t i = 0; i < knees.size(); ++i) {
      const double knee = knees[i];
      device.takes_ns = [knee](uint32_t l) { return kStepNs * std::max(1.0, l / knee); };
      const int64_t from = device.now();
      while (std::abs(slots.settled() - knee) > std::max(0.2 * knee, 1.0)) {
        device.run_jobs(1);
      }
      took[i].push_back(static_cast<double>(device.now() - from) / kStepNs);
      device.run_jobs(100'000);
    }
  }
  std::printf("knee moves, %-12s", sizes);
  for (size_t i = 0; i < knees.size(); ++i) {
    std::sort(took[i].begin(), took[i].end());
    std::printf("  to %u: %.0f, %.0f", knees[i], took[i][20], took[i][38]);
  }
  std::printf("\n");
}

// Jobs that fail with more than 12 slots: how many do, in the long run.
void failures() {
  AdaptiveSlots slots(1024);
  SimulatedDevice device(slots);
  device.takes_ns = [](uint32_t) { return kStepNs; };
  uint64_t failed = 0;
  device.fails = [&failed](uint32_t l) {
    failed += l > 12 ? 1 : 0;
    return l > 12;
  };
  device.run_jobs(20'000);
  const uint64_t at_first = failed;
  device.reset();
  device.run_jobs(400'000);
  std::printf(
      "out of memory past 12: limit %.1f, %.1f %% of the best; failed %llu of the first 20000, "
      "%llu of the next 400000\n",
      device.mean_limit(), 100 * device.work_per_ns() * kStepNs / 12,
      static_cast<unsigned long long>(at_first),
      static_cast<unsigned long long>(failed - at_first));
}

int run() {
  std::printf("%-22s %-16s %5s %8s %10s %10s %9s\n", "device", "job sizes", "knee", "limit",
              "of best", "settled", "jobs");
  std::vector<Scenario> scenarios;
  for (const uint32_t knee : {1U, 2U, 3U, 5U, 8U, 11U, 23U, 45U, 64U, 90U, 180U, 256U}) {
    scenarios.push_back({"roofline", knee, 1024, [knee](uint32_t l) {
                           return kStepNs * std::max(1.0, static_cast<double>(l) / knee);
                         }});
  }
  scenarios.push_back({"linear to the bound", 100, 100, [](uint32_t) { return kStepNs; }});
  scenarios.push_back({"collapses past 24", 24, 512,
                       [](uint32_t l) { return kStepNs * (l <= 24 ? 1 : std::pow(l / 24.0, 3)); }});
  scenarios.push_back({"soft knee", 32, 512, [](uint32_t l) { return kStepNs * (1 + l / 8.0); }});
  for (const Scenario& scenario : scenarios) {
    row(scenario, "constant", Sizes::kConstant, false);
    row(scenario, "log-normal", Sizes::kLogNormal, false);
    row(scenario, "exponential", Sizes::kExponential, false);
    row(scenario, "exp., known work", Sizes::kExponential, true);
  }
  std::printf("\nuntil within a fifth of the knee, in service times of a job\n");
  follow(Sizes::kConstant, "constant");
  follow(Sizes::kLogNormal, "log-normal");
  follow(Sizes::kExponential, "exponential");
  failures();
  return 0;
}

}  // namespace
}  // namespace penstock::queue

int main() { return penstock::queue::run(); }
