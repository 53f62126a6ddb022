#include "shared/http/passed_headers.h"

#include <algorithm>

#include "shared/http/header_lines.h"

namespace penstock::http {
namespace {

constexpr std::string_view kPassed[] = {"anthropic-beta", "anthropic-version", "openai-beta",
                                        "traceparent",    "tracestate",        "x-request-id"};

}  // namespace

bool is_passed_on(std::string_view name) noexcept {
  return std::any_of(std::begin(kPassed), std::end(kPassed),
                     [&](std::string_view each) { return same_name(name, each); });
}

bool is_header_value(std::string_view value) noexcept {
  return !value.empty() && value.size() <= kMaxHeaderValue &&
         std::all_of(value.begin(), value.end(), [](char c) { return c >= 0x20 && c <= 0x7E; });
}

}  // namespace penstock::http
