// Span: one piece of work within a trace, and a batch of them as OTLP has it in JSON.
//
// Source: opentelemetry-proto 1.5, trace/v1/trace.proto and collector/trace/v1; JSON as in
// https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding: ids are hexadecimal, integers
// of 64 bits are text, enumerations are numbers, keys are lowerCamelCase.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "shared/http/trace_context.h"

namespace penstock::queue {

struct SpanAttribute {
  std::string_view name;  // of traces/attributes.h
  std::variant<std::string, int64_t> value;
};

struct Span {
  enum class Kind : uint8_t {
    kInternal = 1,
    kServer = 2,
    kClient = 3,
    kProducer = 4,
    kConsumer = 5
  };

  http::TraceId trace{};
  http::SpanId id{};
  http::SpanId parent{};  // all 0: none
  std::string_view name;  // of traces/attributes.h
  Kind kind = Kind::kInternal;
  int64_t begin_ms = 0;  // since 1970 UTC
  int64_t end_ms = 0;
  bool failed = false;
  std::vector<SpanAttribute> attributes;
};

// An ExportTraceServiceRequest. `instance`: which penstockd this is.
std::string otlp_json(std::string_view instance, const std::vector<Span>& spans);

}  // namespace penstock::queue
