// Problem bodies: one JSON object that is both an RFC 9457 problem and an OpenAI error (CONTRACT,
// section 4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace penstock::http {

struct Problem {
  int status = 500;
  std::string_view detail;    // a sentence for the caller: what happened and what would be right
  std::string_view code;      // error.code: "rate_limit_exceeded", "busy", "not_found" ...
  std::string_view param;     // offending request field; empty: null
  int64_t retry_after_s = 0;  // 0: left out
  std::string_view violated_policies;  // the names as JSON, `"free-rate","ip"`; empty: left out
  std::string_view challenge;          // an object of JSON, to be solved; empty: left out
  std::string_view docs;               // a URL that explains; empty: left out
};

// What render() needs at most: the detail is said twice, and an escape has up to six bytes.
inline size_t bound(const Problem& problem) noexcept {
  return 12 * problem.detail.size() +
         6 * (problem.code.size() + problem.param.size() + problem.docs.size()) +
         problem.violated_policies.size() + problem.challenge.size() + 512;
}

// Writes the object into `out`; strings are escaped. Returns its size, or 0 when it does not fit.
size_t render(const Problem& problem, char* out, size_t capacity) noexcept;

// The reason phrase and OpenAI error type of a status: "Too Many Requests", "rate_limit_error".
std::string_view title_of(int status) noexcept;
std::string_view error_type_of(int status) noexcept;

// Appends `text` as the inside of a JSON string: quotes, backslashes and control characters are
// escaped, bytes that are not UTF-8 become U+FFFD. Returns the end, or nullptr when it does not
// fit.
char* escape_json(std::string_view text, char* out, const char* end) noexcept;
// The same at the end of a string, for those who have a heap.
void append_json(std::string& out, std::string_view text);

}  // namespace penstock::http
