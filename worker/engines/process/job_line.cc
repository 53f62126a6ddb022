#include "worker/engines/process/job_line.h"

#include <algorithm>

#include "shared/base/utf8.h"
#include "shared/http/problem.h"

namespace penstock::process {
namespace {

void append_text(std::string& out, std::string_view key, std::string_view value) {
  out.append(",\"").append(key).append("\":\"");
  http::append_json(out, value);
  out.push_back('"');
}

}  // namespace

bool goes_inline(std::string_view body) {
  return body.size() <= kInlineBodyBytes && utf8_first_invalid(body) == body.npos;
}

std::string job_line(JobNumber job, const ProcessPlan& plan, std::string_view body_file,
                     std::string_view folder, int64_t deadline_ms) {
  std::string out = "{\"job\":" + std::to_string(job);
  append_text(out, "model", plan.model);
  append_text(out, "method", plan.method);
  append_text(out, "path", plan.path);
  if (!plan.query.empty()) {
    append_text(out, "query", plan.query);
  }
  append_text(out, "content_type", plan.content_type);
  if (!plan.traceparent.empty()) {
    append_text(out, "traceparent", plan.traceparent);
  }
  if (!plan.tracestate.empty()) {
    append_text(out, "tracestate", plan.tracestate);
  }
  if (body_file.empty()) {
    append_text(out, "body", plan.body);
  } else {
    append_text(out, "body_file", body_file);
  }
  if (!plan.override.empty()) {
    std::string override = plan.override;  // in JSON a line's end is nothing but space
    std::replace_if(
        override.begin(), override.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
    out.append(",\"override\":").append(override);
  }
  append_text(out, "folder", folder);
  out.append(",\"deadline_ms\":").append(std::to_string(deadline_ms)).append("}\n");
  return out;
}

std::string cancel_line(JobNumber job) { return "{\"cancel\":" + std::to_string(job) + "}\n"; }

}  // namespace penstock::process
