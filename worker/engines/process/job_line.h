// What a program is told: one JSON object a line (docs/PROCESS_PROTOCOL.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "worker/pool/engine.h"

namespace penstock::process {

// A body over this goes as a file, and so does one that is not UTF-8, which no JSON can hold.
constexpr size_t kInlineBodyBytes = 64U << 10;
bool goes_inline(std::string_view body);

struct ProcessPlan final : Plan {
  std::string method;
  std::string path;
  std::string query;                    // empty: none
  std::string traceparent, tracestate;  // likewise
  std::string content_type;
  std::string model;
  std::string_view body;
  std::string copied;                   // where the body lies,
  std::shared_ptr<const void> storage;  // unless there
  std::string override;
  int64_t deadline_ns = 0;  // as in Request
};

// `body_file`: where the body lies; empty: it goes inline. With the line's end.
std::string job_line(JobNumber job, const ProcessPlan& plan, std::string_view body_file,
                     std::string_view folder, int64_t deadline_ms);
std::string cancel_line(JobNumber job);

}  // namespace penstock::process
