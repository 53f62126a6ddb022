// Trace context: which distributed trace a request belongs to, by the headers `traceparent` and
// `tracestate`.
//
// Source: W3C Trace Context (https://www.w3.org/TR/trace-context/), version 00, sections 3.2 and
// 3.3. Hostile until parsed. A traceparent that breaks a rule counts as none, and the tracestate
// beside it, too (section 3.2.2.4, 4.3).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::http {

using TraceId = std::array<uint8_t, 16>;
using SpanId = std::array<uint8_t, 8>;

struct TraceContext {
  TraceId trace{};
  SpanId parent{};  // the span within which this request was made
  uint8_t flags = 0;
  static constexpr uint8_t kSampled = 1;
  bool sampled() const noexcept { return (flags & kSampled) != 0; }
};

constexpr size_t kTraceparentBytes = 55;
constexpr size_t kMostTracestateBytes = 512;
constexpr size_t kMostTracestateMembers = 32;
constexpr size_t kLongTracestateMember = 128;  // these go first, where it is too long

std::optional<TraceContext> parse_traceparent(std::string_view value) noexcept;
// "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
std::string render_traceparent(const TraceContext& context);
std::string hex_of(const TraceId& id);
std::string hex_of(const SpanId& id);

// A tracestate as it goes on: without blanks and empty members, and within the bounds. Empty: it
// breaks a rule.
std::string clean_tracestate(std::string_view value);

// What lines of "Name: value\n" (header_lines.h) say. Nothing: no traceparent, one that breaks a
// rule, or several.
struct TraceHeaders {
  TraceContext context;
  std::string state;  // the tracestate; may be empty
};
std::optional<TraceHeaders> trace_headers_of(std::string_view lines);

}  // namespace penstock::http
