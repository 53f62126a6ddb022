#include "worker/queue/jobs/paces.h"

#include <fmt/format.h>

#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

// Under which it is remembered: another amount is still the same limit.
limit::Hash128 name_of(const std::string& key, const PaceLimit& limit) {
  constexpr limit::Secret kFixed{};
  const std::string text =
      fmt::format("{}{}{} {}", key, '\0', static_cast<int>(limit.unit),
                  limit.calendar ? fmt::format("{}", static_cast<int>(*limit.calendar))
                                 : fmt::format("{}ns", limit.length_ns));
  return limit::siphash13_128(kFixed, text);
}

}  // namespace

void Paces::keep_in(PaceFile file) {
  file_ = std::move(file);
  apply(configured_);
}

void Paces::apply(std::vector<PaceConfig> paces) {
  configured_ = std::move(paces);
  file_.forget_users();
  for (const auto& [key, pace] : paces_) {
    pace->lanes.clear();  // whose they are now is said again
  }
  for (const PaceConfig& wanted : configured_) {
    std::vector<PaceLimit> limits;
    std::vector<PaceRecord*> records;
    for (const PaceLimit& limit : wanted.limits) {
      if (PaceRecord* const record = file_.find(name_of(wanted.key, limit))) {
        limits.push_back(limit);
        records.push_back(record);
      } else {
        log(Level::kError,
            fmt::format(
                "limit_key {}: more than {} limits cannot be remembered, and one of its own "
                "does not hold",
                wanted.key, PaceFile::kPlaces));
      }
    }
    auto& pace = paces_[wanted.key];
    if (pace == nullptr) {
      pace = std::make_unique<Pace>();
    }
    pace->set(std::move(limits), wanted.at_once, std::move(records));
  }
}

Pace* Paces::of(const WorkerConfig& worker) const {
  const auto found = paces_.find(worker.limit_key);
  return worker.limit_key.empty() || found == paces_.end() ? nullptr : found->second.get();
}

void Paces::set_time(const limit::Instant& now) {
  for (const auto& [key, pace] : paces_) {
    pace->set_time(now);
  }
  file_.note_time(now.steady_ns, now.wall_ns);
}

}  // namespace penstock::queue
