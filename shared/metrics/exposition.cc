#include "shared/metrics/exposition.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "shared/base/utf8.h"

namespace penstock::metrics {
namespace {

constexpr size_t kLongestValue = 24;  // -2.2250738585072014e-308

std::string_view name_of(Type type) noexcept {
  switch (type) {
    case Type::counter:
      return "counter";
    case Type::gauge:
      return "gauge";
    case Type::histogram:
      return "histogram";
    case Type::summary:
      break;
  }
  return "summary";
}

bool belongs_to(std::string_view series, std::string_view family) noexcept {
  return series.starts_with(family) &&
         (series.size() == family.size() || series[family.size()] == '{');
}

}  // namespace

std::string escape_label(std::string_view value) {
  std::string out(kLongestEscape * value.size(), '\0');
  out.resize(static_cast<size_t>(escape_label(value, out.data()) - out.data()));
  return out;
}

char* escape_label(std::string_view value, char* out) noexcept {
  const auto put = [&](std::string_view text) { out = std::copy(text.begin(), text.end(), out); };
  while (!value.empty()) {
    const Utf8Char front = utf8_front(value);
    const std::string_view bytes = value.substr(0, front.bytes);
    if (front.kind != Utf8Char::kWhole) {
      put("\uFFFD");
    } else if (bytes == "\\" || bytes == "\"") {
      put("\\");
      put(bytes);
    } else if (bytes == "\n") {
      put("\\n");
    } else {
      put(bytes);
    }
    value.remove_prefix(front.bytes);
  }
  return out;
}

void Writer::family(std::string_view name, Type type, std::string_view help) noexcept {
  line({"# HELP ", name, " ", help, "\n"});
  line({"# TYPE ", name, " ", name_of(type), "\n"});
}

void Writer::sample(std::string_view series, uint64_t value) noexcept {
  char digits[kLongestValue];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  sample_line(series, {digits, end});
}

void Writer::sample(std::string_view series, double value) noexcept {
  if (!std::isfinite(value)) {
    sample_line(series, std::isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf");
    return;
  }
  char digits[kLongestValue];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  sample_line(series, {digits, end});
}

void Writer::sample_line(std::string_view series, std::string_view value) noexcept {
  line({series, " ", value, "\n"}, kLongestValue - value.size());
}

// A line is written whole or, like all after it, not at all.
void Writer::line(std::initializer_list<std::string_view> parts, size_t spare) noexcept {
  size_t size = 0;
  for (const std::string_view part : parts) {
    size += part.size();
  }
  bound_ += size + spare;
  complete_ = complete_ && size <= out_.size() - size_;
  for (const std::string_view part : parts) {
    if (complete_) {
      std::copy(part.begin(), part.end(), out_.begin() + static_cast<std::ptrdiff_t>(size_));
      size_ += part.size();
    }
  }
}

void write_counters(Writer& writer, const Registry& registry, std::string_view name,
                    std::string_view help) noexcept {
  writer.family(name, Type::counter, help);
  for (uint32_t id = 0; id < registry.size(); ++id) {
    if (registry.live(id) && belongs_to(registry.text_of(id), name)) {
      writer.sample(registry.text_of(id), registry.sum(id));
    }
  }
}

}  // namespace penstock::metrics
