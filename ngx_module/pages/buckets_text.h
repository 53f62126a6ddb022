// The samples of a histogram of the metrics page.
#pragma once

#include <cstdio>

#include "ngx_module/pages/series_text.h"
#include "shared/metrics/exposition.h"
#include "shared/wire/metrics_page.h"

namespace penstock {

struct Number {
  char text[32];
  size_t size;
  explicit Number(double value) noexcept
      : size(static_cast<size_t>(std::snprintf(text, sizeof text, "%g", value))) {}
  explicit Number(int64_t value) noexcept
      : size(static_cast<size_t>(
            std::snprintf(text, sizeof text, "%lld", static_cast<long long>(value)))) {}
  operator std::string_view() const noexcept { return {text, size}; }
};

// `labels` are those it has besides `le`.
template <const auto& kBounds>
void write_buckets(metrics::Writer& writer, std::string_view bucket, std::string_view sum,
                   std::string_view count, std::initializer_list<SeriesText::Label> labels,
                   const wire::Buckets<kBounds>& buckets) noexcept {
  uint64_t so_far = 0;
  for (size_t i = 0; i <= kBounds.size(); ++i) {
    so_far += buckets.count[i];
    if (i < kBounds.size()) {
      writer.sample(SeriesText(bucket, labels, {"le", Number(kBounds[i])}), so_far);
    } else {
      writer.sample(SeriesText(bucket, labels, {"le", "+Inf"}), so_far);
    }
  }
  writer.sample(SeriesText(sum, labels), buckets.sum);
  writer.sample(SeriesText(count, labels), so_far);
}

}  // namespace penstock
