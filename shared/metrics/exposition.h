// The page that Prometheus reads: its text format, version 0.0.4.
//
//   # HELP penstock_requests_total Requests by outcome.
//   # TYPE penstock_requests_total counter
//   penstock_requests_total{outcome="rejected"} 12
//
// A Writer goes over a buffer it is given. Rendering twice, first over no buffer at all, tells how
// large it must be:
//
//   Writer measure({});                 render(measure);
//   Writer writer(allocate(measure.bound()));  render(writer);
//
// bound() takes every value at its longest, so that the second pass fits although the counters have
// moved on meanwhile. Nothing here allocates except escape_label(value).
//
// Source: prometheus.io/docs/instrumenting/exposition_formats; names as in .../practices/naming:
// counters end in _total, units are seconds and bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "shared/metrics/registry.h"

namespace penstock::metrics {

constexpr std::string_view kContentType = "text/plain; version=0.0.4; charset=utf-8";

// A label's value as it stands between the quotes: backslash, quote and line feed are escaped,
// bytes that are not UTF-8 become U+FFFD.
std::string escape_label(std::string_view value);
// The same into memory of the caller's; returns the end of what was written. REQUIRES: room for
// kLongestEscape times the value's bytes.
constexpr size_t kLongestEscape = 3;
char* escape_label(std::string_view value, char* out) noexcept;

enum class Type { counter, gauge, histogram, summary };

class Writer {
 public:
  explicit Writer(std::span<char> out) noexcept : out_(out) {}

  // The lines before a family's first sample. Each family must come once, all its samples together.
  // REQUIRES: `help` is one line and has no backslash.
  void family(std::string_view name, Type type, std::string_view help) noexcept;

  // One sample. `series` is name{label="value",...}, its values escaped, or just the name.
  void sample(std::string_view series, uint64_t value) noexcept;
  void sample(std::string_view series, double value) noexcept;

  // Bytes that hold all that was written to this Writer, whether it fit or not.
  size_t bound() const noexcept { return bound_; }

  // Whether all fit. If not, text() ends after the last line that did.
  bool complete() const noexcept { return complete_; }
  std::string_view text() const noexcept { return {out_.data(), size_}; }

 private:
  void line(std::initializer_list<std::string_view> parts, size_t spare = 0) noexcept;
  void sample_line(std::string_view series, std::string_view value) noexcept;

  std::span<char> out_;
  size_t size_ = 0;
  size_t bound_ = 0;
  bool complete_ = true;
};

// One family of counters: every live series of the registry with that name, in the registry's
// order. O(size of the registry).
void write_counters(Writer& writer, const Registry& registry, std::string_view name,
                    std::string_view help) noexcept;

}  // namespace penstock::metrics
