#include "shared/metrics/histogram.h"

#include <algorithm>
#include <string>

namespace penstock::metrics {
namespace {

// The bounds in seconds, written as Prometheus' own clients write them: `le` is compared as text.
constexpr std::array<std::string_view, Histogram::kBuckets> kLe = {
    "2.5e-07", "5e-07", "1e-06",  "2e-06", "5e-06", "1e-05",
    "2e-05",   "5e-05", "0.0001", "0.001", "+Inf"};

constexpr std::string_view kSum = "_sum";
constexpr std::string_view kCount = "_count";

std::string bucket_text(std::string_view name, std::string_view labels, std::string_view le) {
  std::string text(name);
  text.append("_bucket{").append(labels);
  text.append(labels.empty() ? "le=\"" : ",le=\"").append(le).append("\"}");
  return text;
}

std::string sum_text(std::string_view name, std::string_view labels) {
  std::string text(name);
  text += kSum;
  return labels.empty() ? text : text.append("{").append(labels).append("}");
}

// name_count{labels} from name_sum{labels}: the count is no series of its own in the registry.
std::string_view count_text(std::string_view sum, char (&out)[kMaxSeriesText + 8]) noexcept {
  const size_t brace = std::min(sum.find('{'), sum.size());
  std::string_view name = sum.substr(0, brace);
  name.remove_suffix(std::min(name.size(), kSum.size()));
  const std::string_view parts[] = {name, kCount, sum.substr(brace)};
  char* end = out;
  for (const std::string_view part : parts) {
    end = std::copy(part.begin(), part.end(), end);
  }
  return {out, end};
}

}  // namespace

Result<Histogram> Histogram::create(Registry registry, std::string_view name,
                                    std::string_view labels) {
  Histogram histogram;
  for (size_t i = 0; i < kBuckets; ++i) {
    auto id = registry.series(bucket_text(name, labels, kLe[i]));
    if (!id) {
      return id.error();
    }
    histogram.buckets_[i] = *id;
  }
  auto id = registry.series(sum_text(name, labels));
  if (!id) {
    return id.error();
  }
  histogram.sum_ns_ = *id;
  histogram.registry_ = registry;
  return histogram;
}

void Histogram::write_samples(Writer& writer) const noexcept {
  if (!registry_.live(sum_ns_)) {
    return;
  }
  uint64_t count = 0;
  for (const uint32_t bucket : buckets_) {
    count += registry_.sum(bucket);
    writer.sample(registry_.text_of(bucket), count);
  }
  const std::string_view sum = registry_.text_of(sum_ns_);
  char text[kMaxSeriesText + 8];
  writer.sample(sum, static_cast<double>(registry_.sum(sum_ns_)) / 1e9);
  writer.sample(count_text(sum, text), count);
}

}  // namespace penstock::metrics
