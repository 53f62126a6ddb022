#include "worker/queue/traces/job_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace penstock::queue {
namespace {

// One number of many that follow from another (splitmix64, as in the paper of Steele, Lea and
// Flood).
uint64_t mixed(uint64_t from, uint64_t which) {
  uint64_t z = from + which * 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

template <size_t N>
void write(uint64_t number, std::array<uint8_t, N>& out, size_t at) {
  for (size_t i = 0; i < 8; ++i) {
    out[at + i] = static_cast<uint8_t>(number >> (8 * (7 - i)));
  }
}

// By the trace's id, so that whoever else judges by it judges the same (OpenTelemetry's
// TraceIdRatioBased).
bool is_drawn(const http::TraceId& trace, double part) {
  uint64_t low = 0;
  for (size_t i = 9; i < trace.size(); ++i) {
    low = low << 8 | trace[i];
  }
  return static_cast<double>(low) < part * std::pow(2.0, 56);
}

// https://opentelemetry.io/docs/specs/semconv/attributes-registry/gen-ai/
std::string operation_of(std::string_view path) {
  return path.ends_with("/chat/completions") || path.ends_with("/messages") ? "chat"
         : path.ends_with("/completions")                                   ? "text_completion"
         : path.ends_with("/embeddings")                                    ? "embeddings"
                                                                            : "";
}

std::string_view next_word(std::string_view& text) {
  const size_t space = std::min(text.find(' '), text.size());
  const std::string_view word = text.substr(0, space);
  text.remove_prefix(std::min(space + 1, text.size()));
  return word == "-" ? std::string_view() : word;
}

}  // namespace

http::SpanId span_id(const Ulid& job, uint64_t which) {
  http::SpanId id{};
  write(std::max<uint64_t>(mixed(job.low, which), 1), id, 0);
  return id;
}

http::SpanId span_id(const http::SpanId& job, uint64_t which) {
  uint64_t number = 0;
  for (const uint8_t byte : job) {
    number = number << 8 | byte;
  }
  return span_id(Ulid{.high = 0, .low = number}, which);
}

std::unique_ptr<JobTrace> begin_trace(const Ulid& job, std::string_view headers,
                                      std::string_view path, const TracesConfig& config) {
  auto came = http::trace_headers_of(headers);
  if (!came && !config.on()) {
    return nullptr;
  }
  auto trace = std::make_unique<JobTrace>();
  if (came) {
    trace->context = came->context;
    trace->state = std::move(came->state);
  } else {
    write(mixed(job.low, kOfTrace), trace->context.trace, 0);
    write(std::max<uint64_t>(mixed(job.low, kOfTraceToo), 1), trace->context.trace, 8);
    trace->context.flags =
        is_drawn(trace->context.trace, config.roots) ? http::TraceContext::kSampled : 0;
  }
  if (config.on()) {
    trace->spans = true;
    trace->caller = trace->context.parent;
    trace->context.parent = span_id(job, kOfJob);
    trace->operation = operation_of(path);
  }
  trace->trace_id = http::hex_of(trace->context.trace);
  return trace;
}

std::string text_of(const JobTrace& trace) {
  return fmt::format("{} {} {} {}", http::render_traceparent(trace.context),
                     trace.spans ? http::hex_of(trace.caller) : "-",
                     trace.operation.empty() ? "-" : trace.operation,
                     trace.state.empty() ? "-" : trace.state);
}

std::unique_ptr<JobTrace> parse_trace(std::string_view text) {
  const auto context = http::parse_traceparent(next_word(text));
  if (!context) {
    return nullptr;
  }
  auto trace = std::make_unique<JobTrace>();
  trace->context = *context;
  const std::string_view caller = next_word(text);
  trace->spans = !caller.empty();
  const auto above = http::parse_traceparent("00-" + http::hex_of(context->trace) + "-" +
                                             std::string(caller) + "-00");
  trace->caller = above ? above->parent : http::SpanId{};
  trace->operation = next_word(text);
  trace->state = text == "-" ? std::string() : http::clean_tracestate(text);
  trace->trace_id = http::hex_of(context->trace);
  return trace;
}

std::string_view trace_id_in(std::string_view text) {
  constexpr size_t kAt = 3;
  constexpr size_t kBytes = 32;
  return http::parse_traceparent(text.substr(0, http::kTraceparentBytes)) ? text.substr(kAt, kBytes)
                                                                          : std::string_view();
}

std::string renewed_trace(std::string_view text, const Ulid& job, int64_t now_ms) {
  const auto trace = parse_trace(text);
  if (trace == nullptr || !trace->spans) {
    return std::string(text);
  }
  trace->context.parent = span_id(job, static_cast<uint64_t>(now_ms));
  return text_of(*trace);
}

std::vector<std::string> trace_headers(std::string_view text, bool on) {
  const auto trace = parse_trace(text);
  std::vector<std::string> headers;
  if (trace != nullptr && trace->spans && !on) {
    trace->context.parent = trace->caller;
  }
  if (trace != nullptr && trace->context.parent != http::SpanId{}) {
    headers.push_back("traceparent: " + http::render_traceparent(trace->context));
    if (!trace->state.empty()) {
      headers.push_back("tracestate: " + trace->state);
    }
  }
  return headers;
}

}  // namespace penstock::queue
