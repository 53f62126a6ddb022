// Finding: one thing that was looked at, for people: how it is, and what to do.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace penstock::queue {

struct Finding {
  enum class Level : uint8_t { kOk, kWarn, kBad };
  Level level = Level::kOk;
  std::string about;   // "socket", "workers.chat.model"
  std::string text;    // what it is: "/run/penstock is not there"
  std::string advice;  // what to do; empty where nothing is
  bool stops = false;  // kBad: penstockd does not start by it
};

constexpr const char* name_of(Finding::Level level) {
  return level == Finding::Level::kOk ? "ok" : level == Finding::Level::kWarn ? "warn" : "bad";
}

// "warn: socket: /run/penstock is not there; make it: mkdir -m 0755 /run/penstock"
inline std::string line_of(const Finding& finding) {
  return std::string(name_of(finding.level)) + ": " + finding.about + ": " + finding.text +
         (finding.advice.empty() ? "" : "; " + finding.advice);
}

// The worst of all.
inline Finding::Level level_of(const std::vector<Finding>& findings) {
  Finding::Level worst = Finding::Level::kOk;
  for (const Finding& each : findings) {
    worst = std::max(worst, each.level);
  }
  return worst;
}

}  // namespace penstock::queue
