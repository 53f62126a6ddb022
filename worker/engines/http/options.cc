#include "worker/engines/http/options.h"

#include <algorithm>
#include <iterator>
#include <sstream>

#include "shared/http/header_lines.h"
#include "worker/pool/options.h"

namespace penstock::http_engine {
namespace {

constexpr char kLocalhost[] = "http://localhost";

constexpr int64_t kMost = INT64_MAX;

bool protocol(std::string_view text, Protocol& out) {
  out = text == "kserve"  ? Protocol::kKserve
        : text == "plain" ? Protocol::kPlain
                          : Protocol::kOpenai;
  return text == "openai" || text == "kserve" || text == "plain";
}

std::string_view without_slashes(std::string_view text) {
  while (!text.empty() && text.back() == '/') {
    text.remove_suffix(1);
  }
  return text;
}

struct Number {
  const char* key;
  int64_t Options::*field;
};
constexpr Number kNumbers[] = {{"linger_ns", &Options::linger_ns},
                               {"max_answer", &Options::max_answer_bytes},
                               {"max_error_body", &Options::max_error_body_bytes},
                               {"backoff_first_ns", &Options::backoff_first_ns},
                               {"backoff_most_ns", &Options::backoff_most_ns},
                               {"max_hold_ns", &Options::max_hold_ns}};
struct Timeout {
  const char* key;
  int64_t Timeouts::*field;
};
constexpr Timeout kTimeouts[] = {
    {"connect_ns", &Timeouts::connect_ns},           {"idle_ns", &Timeouts::idle_ns},
    {"first_event_ns", &Timeouts::first_event_ns},   {"event_idle_ns", &Timeouts::event_idle_ns},
    {"after_finish_ns", &Timeouts::after_finish_ns}, {"total_ns", &Timeouts::total_ns}};
struct Text {
  const char* key;
  std::string Options::*field;
};
constexpr Text kTexts[] = {{"upstream_model", &Options::upstream_model},
                           {"health", &Options::health},
                           {"key_file", &Options::key_file},
                           {"ca", &Options::ca}};

// What would have been right, or an empty text when the option was taken.
std::string take(const std::string& key, const std::string& value, Options& out) {
  for (const Number& each : kNumbers) {
    if (key == each.key) {
      return parse_number<int64_t>(value, 0, kMost, out.*each.field) ? "" : "a whole number";
    }
  }
  for (const Timeout& each : kTimeouts) {
    if (key == each.key) {
      return parse_number<int64_t>(value, 0, kMost, out.timeouts.*each.field) ? "" : "nanoseconds";
    }
  }
  for (const Text& each : kTexts) {
    if (key == each.key) {
      out.*each.field = value;
      return "";
    }
  }
  if (key == "protocol") {
    return protocol(value, out.protocol) ? "" : "openai, kserve or plain";
  }
  if (key != "url") {
    return "no option at all";
  }
  auto url = parse_url(value);
  if (!url) {
    return url.error().message;
  }
  out.url = *std::move(url);
  return "";
}

// What may not stand in a path as it is (RFC 3986, section 3.3), callers' come decoded; and in a
// query, where %XX is left as it came.
constexpr std::string_view kInPath = "-._~!$&'()*+,;=:@/";
constexpr std::string_view kInQuery = "-._~!$&'()*+,;=:@/?%[]";

// The rest in %XX.
std::string encoded(std::string_view text, std::string_view plain) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
        plain.find(c) != plain.npos) {
      out += c;
    } else {
      out.append({'%', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
  return out;
}

}  // namespace

std::string Url::shown(std::string_view path) const {
  std::string whole = of(path);
  whole.resize(whole.size() - query.size());
  return socket.empty() ? whole : "unix:" + socket + whole.substr(std::size(kLocalhost) - 1);
}

std::string Url::of(std::string_view path, std::string_view asked) const {
  const size_t scheme = base.find("://");
  const size_t slash = base.find('/', scheme + 3);
  const std::string_view own = slash == base.npos ? "" : std::string_view(base).substr(slash);
  // The longest end of our own path that the caller's begins with.
  for (size_t at = 0; at < own.size(); at = own.find('/', at + 1)) {
    const std::string_view end = own.substr(at);
    if (path.starts_with(end) && (path.size() == end.size() || path[end.size()] == '/')) {
      path.remove_prefix(end.size());
      break;
    }
  }
  std::string whole = base + encoded(path, kInPath) + query;
  if (!asked.empty()) {
    whole.append(query.empty() ? "?" : "&").append(encoded(asked, kInQuery));
  }
  return whole;
}

Result<Url> parse_url(std::string_view text) {
  Url url;
  if (text.find_first_of(" \t\r\n#\"'<>\\") != text.npos) {
    return Error{"an url without blanks, quotes and #"};
  }
  if (const size_t mark = text.find('?'); mark != text.npos) {
    url.query = text.substr(mark);
    text = text.substr(0, mark);
  }
  if (text.starts_with("unix:")) {
    text.remove_prefix(5);
    const size_t colon = text.find(':');
    const std::string_view behind = colon == text.npos ? "" : text.substr(colon + 1);
    url.socket = text.substr(0, colon);
    url.base = kLocalhost + std::string(without_slashes(behind));
    const bool right = url.socket.starts_with('/') && (behind.empty() || behind.starts_with('/'));
    return right ? Result<Url>(url) : Error{"unix: and the socket's whole path: unix:/run/x.sock"};
  }
  const size_t scheme = text.starts_with("http://") ? 7 : text.starts_with("https://") ? 8 : 0;
  const std::string_view host = text.substr(scheme, text.find('/', scheme) - scheme);
  if (scheme == 0 || host.empty()) {
    return Error{"http://HOST:PORT, https://HOST or unix:/path/of.sock"};
  }
  if (host.find('@') != host.npos) {
    return Error{"an url without a password; put the key in a key_file"};
  }
  url.base = without_slashes(text);
  return url;
}

bool Options::has_header(std::string_view name) const {
  return std::any_of(headers.begin(), headers.end(), [&](const std::string& line) {
    return http::same_name(line.substr(0, line.find(':')), name);
  });
}

Result<Options> parse_options(const std::map<std::string, std::string>& given,
                              const char* headers) {
  Options options;
  for (const auto& [key, value] : given) {
    if (const std::string wanted = take(key, value, options); !wanted.empty()) {
      return Error{std::string("the http engine's option ")
                       .append(key)
                       .append(" is \"")
                       .append(value)
                       .append("\"; it must be ")
                       .append(wanted)};
    }
  }
  std::istringstream lines(headers == nullptr ? "" : headers);
  for (std::string line; std::getline(lines, line);) {
    options.headers.push_back(line);
  }
  if (options.url.base.empty()) {
    return Error{"the http engine needs an url: http://127.0.0.1:8000"};
  }
  return options;
}

}  // namespace penstock::http_engine
