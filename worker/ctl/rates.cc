#include "worker/ctl/rates.h"

#include <algorithm>
#include <cstdio>

#include "shared/base/clock.h"
#include "worker/ctl/json.h"
#include "worker/ctl/table.h"

namespace penstock::ctl {

std::string Rates::since_last(const std::string& json, int64_t now_ns) {
  simdjson::dom::parser parser;
  JsonElement root;
  simdjson::dom::object counters;
  if (!parse_object(parser, json, root) ||
      root.at_key("counters").get(counters) != simdjson::SUCCESS) {
    return "";
  }
  const double seconds = static_cast<double>(now_ns - told_ns_) / kNsPerSec;
  const bool first = counts_.empty() || seconds <= 0;
  std::map<std::string, double> counts;
  std::string line;
  for (const auto [key, value] : counters) {
    double count = 0;
    if (value.get(count) != simdjson::SUCCESS) {
      continue;
    }
    std::string name = printable(key);
    std::replace(name.begin(), name.end(), '_', ' ');
    const double grown = count - counts_[name];
    if (!first && grown > 0) {
      char rate[32];
      std::snprintf(rate, sizeof rate, "%.1f ", grown / seconds);
      line += (line.empty() ? "" : ", ") + (rate + name) + "/s";
    }
    counts[name] = count;
  }
  counts_ = std::move(counts);
  told_ns_ = now_ns;
  return line;
}

}  // namespace penstock::ctl
