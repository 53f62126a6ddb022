// The headers and queries that clients send, read by every parser of them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "shared/base/job_id.h"
#include "shared/http/http_date.h"
#include "shared/http/idempotency_key.h"
#include "shared/http/prefer.h"
#include "shared/http/query.h"
#include "shared/http/structured_field.h"
#include "shared/http/trace_context.h"
#include "worker/queue/jobs/event_stream.h"
#include "worker/queue/traces/job_trace.h"

namespace {

void check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  penstock::http::parse_prefer(text);
  penstock::http::parse_http_date(text);
  if (const auto seconds = penstock::http::parse_delay_seconds(text)) {
    check(*seconds >= 0);
  }
  if (const auto key = penstock::http::parse_idempotency_key(text)) {
    check(!key->empty() && key->size() <= penstock::http::kMaxIdempotencyKey);
  }
  const size_t item = penstock::http::bare_item_end(text, 0);
  check(item == text.npos || (item > 0 && item <= text.size()));
  const size_t parameters = penstock::http::parameters_end(text, 0);
  check(parameters == text.npos || parameters <= text.size());
  if (const auto query = penstock::http::Query::parse(text)) {
    query->get("status");
  }
  if (const auto id = penstock::parse_job_id(text)) {
    check(id->view() == text);
  }
  if (const auto context = penstock::http::parse_traceparent(text)) {
    const auto again =
        penstock::http::parse_traceparent(penstock::http::render_traceparent(*context));
    check(again && again->trace == context->trace && again->parent == context->parent);
  }
  const std::string state = penstock::http::clean_tracestate(text);
  check(state.size() <= penstock::http::kMostTracestateBytes &&
        penstock::http::clean_tracestate(state) == state);
  penstock::http::trace_headers_of(text);
  penstock::queue::parse_trace(text);
  if (const auto id = penstock::queue::parse_event_id(text); id && !text.empty()) {
    const auto again = penstock::queue::parse_event_id(penstock::queue::format(*id));
    check(again && again->run == id->run && again->offset == id->offset);
  }
  return 0;
}
