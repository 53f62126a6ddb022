#include "worker/engines/http/headers.h"

#include <algorithm>
#include <charconv>

#include "shared/http/header_lines.h"

namespace penstock::http_engine {
namespace {

using http::same_name;

constexpr std::string_view kAllowed[] = {
    "content-language", "content-disposition", "inference-header-content-length",
    "x-request-id",     "request-id",          "openai-processing-ms",
    "openai-version",   "openai-organization"};
constexpr std::string_view kAllowedPrefixes[] = {"x-ratelimit-", "anthropic-ratelimit-"};

bool is_allowed(std::string_view name) {
  return std::any_of(std::begin(kAllowed), std::end(kAllowed),
                     [&](std::string_view each) { return same_name(name, each); }) ||
         std::any_of(
             std::begin(kAllowedPrefixes), std::end(kAllowedPrefixes),
             [&](std::string_view each) { return same_name(name.substr(0, each.size()), each); });
}

std::string_view trimmed(std::string_view text) {
  const size_t from = text.find_first_not_of(" \t\r\n");
  return from == text.npos ? "" : text.substr(from, text.find_last_not_of(" \t\r\n") + 1 - from);
}

bool is_value(std::string_view value) {
  return !value.empty() && value.size() <= http::kMaxHeaderValue &&
         std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c < 127; });
}

}  // namespace

bool Head::take(std::string_view line) {
  bytes_ += line.size();
  if (bytes_ > kMaxBytes) {
    return false;
  }
  if (line.starts_with("HTTP/")) {
    begin(line);
  } else if (trimmed(line).empty()) {
    closed_ = true;
  } else if (!closed_) {
    const size_t colon = line.find(':');
    if (colon != line.npos) {
      take_header(line.substr(0, colon), trimmed(line.substr(colon + 1)));
    }
  }
  return true;
}

// An answer, after those of status 1xx that are none. What those said is forgotten.
void Head::begin(std::string_view line) {
  if (final()) {
    return;  // a trailer that looks like it
  }
  const size_t bytes = bytes_;
  *this = Head();
  bytes_ = bytes;
  const size_t blank = std::min(line.find(' '), line.size());
  const std::string_view rest = trimmed(line.substr(blank));
  std::from_chars(rest.data(), rest.data() + std::min<size_t>(rest.size(), 3), status_);
}

void Head::take_header(std::string_view name, std::string_view value) {
  if (same_name(name, "content-type")) {
    content_type_ = is_value(value) ? value : "";
  } else if (same_name(name, "content-length")) {
    std::from_chars(value.data(), value.data() + value.size(), content_length_);
  } else if (same_name(name, "content-encoding")) {
    encoded_ = !value.empty() && !same_name(value, "identity");
  } else if (same_name(name, "location")) {
    location_ = value;
  } else if (same_name(name, "server")) {
    server_ = value;
  } else if (same_name(name, "retry-after")) {
    retry_after_ = value;
  } else if (same_name(name, "retry-after-ms")) {
    retry_after_ms_ = value;
  } else if (is_allowed(name) && is_value(value) && lines_ + 1 < http::kMaxHeaderLines) {
    ++lines_;
    allowed_.append(name).append(": ").append(value).append("\n");
  }
}

std::string Head::allowed() const {
  const bool tells = status_ >= 400 && status_ < 500 && is_value(retry_after_);
  return allowed_ + (tells ? "Retry-After: " + retry_after_ + "\n" : "");
}

}  // namespace penstock::http_engine
