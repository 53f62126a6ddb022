#include "worker/queue/config/pace_keys.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "shared/base/units.h"
#include "shared/limit/span_letter.h"
#include "worker/queue/config/names.h"

namespace penstock::queue {
namespace {

constexpr uint64_t kMostAmount = 1'000'000'000;
constexpr int64_t kMostLengthNs = int64_t{31} * 86'400 * kNsPerSec;

// "10r" or "200000t"
bool read_amount(std::string_view text, PaceLimit& limit) {
  if (text.size() < 2 || (text.back() != 'r' && text.back() != 't')) {
    return false;
  }
  limit.unit = text.back() == 'r' ? PaceLimit::Unit::kRequests : PaceLimit::Unit::kTokens;
  const char* const end = text.data() + text.size() - 1;
  const auto [at, error] = std::from_chars(text.data(), end, limit.amount);
  return error == std::errc() && at == end && limit.amount > 0 && limit.amount <= kMostAmount;
}

// "120s", "m", "2h": a number may stand before it.
std::optional<int64_t> length_of(std::string_view text) {
  const std::string with_number =
      (text.find_first_of("0123456789") == 0 ? "" : "1") + std::string(text);
  return parse_duration_ns(with_number);
}

// "10r/120s"
const char* read_rolling(std::string_view text, PaceLimit& limit) {
  const size_t slash = std::min(text.find('/'), text.size());
  const auto length = length_of(text.substr(std::min(slash + 1, text.size())));
  if (!read_amount(text.substr(0, slash), limit) || !length || *length < kNsPerMs ||
      *length > kMostLengthNs) {
    return "must be such as 10r/120s or 200000t/m: an amount of requests (r) or tokens (t), up to "
           "1000000000, in a time from 1ms to 31d";
  }
  limit.length_ns = *length;
  return nullptr;
}

// "1000r/d"
const char* read_calendar(std::string_view text, PaceLimit& limit) {
  const size_t slash = std::min(text.find('/'), text.size());
  limit.calendar = limit::span_of(text.substr(std::min(slash + 1, text.size())));
  if (!read_amount(text.substr(0, slash), limit) || !limit.calendar) {
    return "must be such as 1000r/d: an amount of requests (r) or tokens (t), up to 1000000000, in "
           "each s, m, h, d, w or M of the calendar (UTC)";
  }
  if (const auto fits = limit::make_fixed_window(limit.amount, *limit.calendar); !fits) {
    return "is more than can be counted in one such time; write a smaller amount";
  }
  return nullptr;
}

void read_limits(Section& section, const std::string& key,
                 const char* (*read)(std::string_view, PaceLimit&), PaceConfig& pace) {
  const YAML::Node value = section.take(key);
  if (!value.IsDefined()) {
    return;
  }
  if (!value.IsSequence() && !value.IsScalar()) {
    return section.complain(key, "must be a limit, or a list of them: [10r/120s, 200000t/m]");
  }
  const size_t count = value.IsSequence() ? value.size() : 1;
  for (size_t i = 0; i < count; ++i) {
    const YAML::Node each = value.IsSequence() ? value[i] : value;
    PaceLimit limit;
    const char* const wrong = read(each.IsScalar() ? each.Scalar() : "", limit);
    if (wrong != nullptr) {
      return section.complain(key, wrong);
    }
    if (pace.limits.size() == Pace::kMostLimits) {
      return section.complain(key, "is one limit too many; limit and quota may have 4 together");
    }
    pace.limits.push_back(limit);
  }
}

}  // namespace

const PaceConfig* find_pace(const Config& config, const std::string& key) {
  const auto found = std::find_if(config.paces.begin(), config.paces.end(),
                                  [&](const PaceConfig& each) { return each.key == key; });
  return found == config.paces.end() ? nullptr : &*found;
}

void read_pace(Section& section, WorkerConfig& worker, Config& config) {
  PaceConfig pace;
  read_limits(section, "limit", read_rolling, pace);
  read_limits(section, "quota", read_calendar, pace);
  section.number("concurrency", pace.at_once, 1, 1'000'000);
  section.text("limit_key", worker.limit_key);
  if (section.has("limit_key") && !good_name(worker.limit_key)) {
    section.complain("limit_key", name_rule());
  }
  if (pace.limits.empty() && pace.at_once == 0) {
    return;
  }
  if (worker.limit_key.empty()) {
    worker.limit_key = worker.name;
  }
  pace.key = worker.limit_key;
  const PaceConfig* const known = find_pace(config, pace.key);
  if (known == nullptr) {
    config.paces.push_back(std::move(pace));
  } else if (known->limits != pace.limits || known->at_once != pace.at_once) {
    section.complain("limit_key", "another worker says other limits for " + pace.key +
                                      "; write them once, and only the limit_key elsewhere");
  }
}

}  // namespace penstock::queue
