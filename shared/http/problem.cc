#include "shared/http/problem.h"

#include <charconv>
#include <cstring>

#include "shared/base/utf8.h"

namespace penstock::http {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Whether one of eight bytes is below 0x20, above 0x7E, a quote or a backslash. (x - 0x20 borrows
// into the top bit for the first; x XOR c is zero for an equal byte, and (y - 1) & ~y has the top
// bit of a zero byte. May err only on the side of "yes".)
bool needs_care(uint64_t x) noexcept {
  constexpr uint64_t kOnes = 0x0101010101010101;
  constexpr uint64_t kTops = 0x8080808080808080;
  const auto has_zero = [](uint64_t y) { return (y - kOnes) & ~y; };
  const uint64_t care = (x - kOnes * 0x20) | x | (x + kOnes) | has_zero(x ^ (kOnes * '"')) |
                        has_zero(x ^ (kOnes * '\\'));
  return (care & kTops) != 0;
}

// How many bytes at the front go into JSON as they are, as far as eight at a time tell; then one by
// one.
size_t plain_length(std::string_view text) noexcept {
  size_t n = 0;
  uint64_t word;
  for (; n + sizeof word <= text.size(); n += sizeof word) {
    std::memcpy(&word, text.data() + n, sizeof word);
    if (needs_care(word)) {
      break;
    }
  }
  while (n < text.size()) {
    const auto c = static_cast<unsigned char>(text[n]);
    if (c < 0x20 || c > 0x7E || c == '"' || c == '\\') {
      break;
    }
    ++n;
  }
  return n;
}

// A bounded cursor: once something did not fit, nothing more is written and ok() is false.
class Writer {
 public:
  Writer(char* out, size_t capacity) noexcept : start_(out), at_(out), end_(out + capacity) {}

  Writer& raw(std::string_view text) noexcept {
    if (at_ == nullptr || text.size() > static_cast<size_t>(end_ - at_)) {
      at_ = nullptr;
    } else {
      std::memcpy(at_, text.data(), text.size());
      at_ += text.size();
    }
    return *this;
  }
  Writer& escaped(std::string_view text) noexcept {
    if (at_ != nullptr) {
      at_ = escape_json(text, at_, end_);
    }
    return *this;
  }
  Writer& number(int64_t value) noexcept {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    return raw({digits, static_cast<size_t>(end - digits)});
  }
  // What was written since `from`, a size() of before.
  std::string_view since(size_t from) const noexcept {
    return at_ == nullptr ? std::string_view{} : std::string_view(start_ + from, size() - from);
  }
  size_t size() const noexcept { return at_ == nullptr ? 0 : static_cast<size_t>(at_ - start_); }

 private:
  char* start_;
  char* at_;
  char* end_;
};

}  // namespace

char* escape_json(std::string_view text, char* out, const char* end) noexcept {
  static constexpr char kHex[] = "0123456789abcdef";
  while (!text.empty()) {
    char escape[6];
    std::string_view piece;
    size_t taken = plain_length(text);
    const auto c = static_cast<unsigned char>(text.front());
    if (taken > 0) {
      piece = text.substr(0, taken);
    } else if (c == '"' || c == '\\') {
      escape[0] = '\\';
      escape[1] = static_cast<char>(c);
      piece = {escape, 2};
      taken = 1;
    } else if (c == '\n') {
      piece = "\\n";
      taken = 1;
    } else if (c < 0x20 || c == 0x7F) {
      escape[0] = '\\';
      escape[1] = 'u';
      escape[2] = escape[3] = '0';
      escape[4] = kHex[c >> 4];
      escape[5] = kHex[c & 15];
      piece = {escape, 6};
      taken = 1;
    } else {
      const Utf8Char front = utf8_front(text);
      taken = front.kind == Utf8Char::kWhole ? front.bytes : 1;
      piece = front.kind == Utf8Char::kWhole ? text.substr(0, taken) : kReplacement;
    }
    if (piece.size() > static_cast<size_t>(end - out)) {
      return nullptr;
    }
    std::memcpy(out, piece.data(), piece.size());
    out += piece.size();
    text.remove_prefix(taken);
  }
  return out;
}

std::string_view title_of(int status) noexcept {
  switch (status) {
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 410:
      return "Gone";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 416:
      return "Range Not Satisfiable";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 500:
      return "Internal Server Error";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return status < 500 ? "Client Error" : "Server Error";
  }
}

std::string_view error_type_of(int status) noexcept {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

size_t render(const Problem& problem, char* out, size_t capacity) noexcept {
  const bool quota = problem.status == 429;
  Writer w(out, capacity);
  w.raw(R"({"type":")")
      .raw(quota ? "https://iana.org/assignments/http-problem-types#quota-exceeded" : "about:blank")
      .raw(R"(","title":")")
      .raw(title_of(problem.status))
      .raw(R"(","status":)")
      .number(problem.status)
      .raw(R"(,"detail":")");
  const size_t detail_at = w.size();
  const std::string_view detail = w.escaped(problem.detail).since(detail_at);
  w.raw("\"");
  if (!problem.violated_policies.empty()) {
    w.raw(R"(,"violated-policies":[)").raw(problem.violated_policies).raw("]");
  }
  if (problem.retry_after_s > 0) {
    w.raw(R"(,"retry_after":)").number(problem.retry_after_s);
  }
  if (!problem.challenge.empty()) {
    w.raw(R"(,"challenge":)").raw(problem.challenge);
  }
  if (!problem.docs.empty()) {
    w.raw(R"(,"documentation":")").escaped(problem.docs).raw("\"");
  }
  w.raw(R"(,"error":{"message":")")
      .raw(detail)
      .raw(R"(","type":")")
      .raw(error_type_of(problem.status))
      .raw(R"(","param":)");
  if (problem.param.empty()) {
    w.raw("null");
  } else {
    w.raw("\"").escaped(problem.param).raw("\"");
  }
  w.raw(R"(,"code":")").escaped(problem.code).raw("\"}}\n");
  return w.size();
}

void append_json(std::string& out, std::string_view text) {
  constexpr size_t kLongestEscape = 6;
  const size_t start = out.size();
  out.resize(start + kLongestEscape * text.size());
  const char* const end = escape_json(text, out.data() + start, out.data() + out.size());
  out.resize(static_cast<size_t>(end - out.data()));
}

}  // namespace penstock::http
