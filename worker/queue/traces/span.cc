#include "worker/queue/traces/span.h"

#include <algorithm>

#include "shared/base/clock.h"
#include "shared/base/version.h"
#include "worker/queue/text/json.h"
#include "worker/queue/traces/attributes.h"

namespace penstock::queue {
namespace {

constexpr int64_t kStatusError = 2;

std::string attribute_json(std::string_view name, const std::variant<std::string, int64_t>& value) {
  const auto* const text = std::get_if<std::string>(&value);
  const std::string inner =
      text != nullptr
          ? JsonObject().text("stringValue", *text).done()
          : JsonObject().text("intValue", std::to_string(std::get<int64_t>(value))).done();
  return JsonObject().text("key", name).raw("value", inner).done();
}

std::string nanoseconds(int64_t ms) { return std::to_string(ms * kNsPerMs); }

std::string span_json(const Span& span) {
  JsonObject json;
  json.text("traceId", http::hex_of(span.trace)).text("spanId", http::hex_of(span.id));
  if (span.parent != http::SpanId{}) {
    json.text("parentSpanId", http::hex_of(span.parent));
  }
  JsonList attributes;
  for (const SpanAttribute& each : span.attributes) {
    attributes.add(attribute_json(each.name, each.value));
  }
  json.text("name", span.name)
      .number("kind", static_cast<int64_t>(span.kind))
      .text("startTimeUnixNano", nanoseconds(span.begin_ms))
      .text("endTimeUnixNano", nanoseconds(std::max(span.begin_ms, span.end_ms)))
      .raw("attributes", attributes.done());
  if (span.failed) {
    json.raw("status", JsonObject().number("code", kStatusError).done());
  }
  return json.done();
}

}  // namespace

std::string otlp_json(std::string_view instance, const std::vector<Span>& spans) {
  JsonList attributes;
  attributes.add(attribute_json(span::kServiceName, std::string("penstock")));
  attributes.add(attribute_json(span::kServiceVersion, std::string(version())));
  attributes.add(attribute_json(span::kServiceInstance, std::string(instance)));
  JsonList list;
  for (const Span& each : spans) {
    list.add(span_json(each));
  }
  const std::string of_scope =
      JsonObject()
          .raw("scope", JsonObject().text("name", span::kScope).text("version", version()).done())
          .raw("spans", list.done())
          .done();
  const std::string of_resource =
      JsonObject()
          .raw("resource", JsonObject().raw("attributes", attributes.done()).done())
          .raw("scopeSpans", "[" + of_scope + "]")
          .done();
  return JsonObject().raw("resourceSpans", "[" + of_resource + "]").done();
}

}  // namespace penstock::queue
