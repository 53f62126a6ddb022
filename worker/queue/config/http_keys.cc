#include "worker/queue/config/http_keys.h"

#include <algorithm>
#include <string_view>

#include "worker/queue/config/engine_options.h"
#include "worker/queue/config/environment.h"
#include "worker/queue/config/names.h"

namespace penstock::queue {
namespace {

constexpr size_t kMaxUrls = 64;
constexpr size_t kMaxUrlBytes = 200;
constexpr size_t kMaxHeaders = 32;
constexpr size_t kMaxHeaderBytes = 4096;
constexpr int64_t kMaxBytes = int64_t{1} << 50;

// nullptr: it is one that a worker can be sent to.
const char* wrong_with(std::string_view url) {
  const bool unix_socket = url.starts_with("unix:/");
  const size_t host = url.starts_with("http://") ? 7 : url.starts_with("https://") ? 8 : 0;
  if (!unix_socket && (host == 0 || url.size() <= host || url[host] == '/')) {
    return "must be http://HOST:PORT, https://HOST or unix:/path/of.sock, or a list of these";
  }
  if (url.size() > kMaxUrlBytes ||
      std::any_of(url.begin(), url.end(), [](char c) { return c <= ' ' || c > '~' || c == '#'; })) {
    return "must be an url of at most 200 printable characters, without blanks and #";
  }
  const std::string_view authority = url.substr(host, url.find('/', host) - host);
  if (!unix_socket && authority.find('@') != authority.npos) {
    return "holds a password, which everyone can read who sees the process; use key_file";
  }
  return nullptr;
}

void read_urls(Section& section, WorkerConfig& worker) {
  const YAML::Node value = section.take("url");
  std::vector<std::string> urls;
  if (value.IsDefined() && value.IsSequence() && value.size() <= kMaxUrls) {
    for (const auto& each : value) {
      urls.push_back(each.IsScalar() ? each.Scalar() : "");
    }
  } else if (value.IsDefined() && value.IsScalar()) {
    urls.push_back(value.Scalar());
  }
  if (urls.empty()) {
    section.complain("url", value.IsDefined() ? "must be an url, or a list of 1 to 64"
                                              : "is missing; engine http needs url: "
                                                "\"http://127.0.0.1:8000\"");
    return;
  }
  for (const std::string& url : urls) {
    if (const char* const wrong = wrong_with(url); wrong != nullptr) {
      return section.complain("url", wrong);
    }
    if (std::count(urls.begin(), urls.end(), url) > 1) {
      return section.complain("url", "names " + url + " twice");
    }
  }
  if (section.has("device")) {
    section.complain("device", "is not for engine http: its jobs run behind the url");
  }
  worker.devices = urls;
}

bool is_token(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_';
  });
}

void read_headers(Section& section, WorkerConfig& worker) {
  const YAML::Node value = section.take("headers");
  if (!value.IsDefined()) {
    return;
  }
  size_t count = 0;
  std::string lines;
  Section headers(value, section.path_of("headers"), section.complaints());
  headers.each([&](const std::string& name, const YAML::Node& node, int line) {
    const auto filled = with_environment(node.IsScalar() ? node.Scalar() : "");
    if (!filled) {
      return section.complaints().add(line, section.path_of("headers"), filled.error().message);
    }
    const std::string& text = *filled;
    const bool plain =
        std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c < 127; });
    if (!is_token(name) || text.empty() || !plain || text.size() > kMaxHeaderBytes ||
        ++count > kMaxHeaders) {
      section.complaints().add(line, section.path_of("headers"),
                               "must be a map of at most 32 headers, each a name and one line of "
                               "printable text");
      return;
    }
    lines += name + ": " + text + "\n";
  });
  section.note_hidden("headers", std::to_string(count) + " of them, not shown", lines);
  worker.environment.push_back("HEADERS=" + lines);
}

// Reads one section of durations: KEY becomes the option PREFIXKEY_ns.
void read_durations(Section& section, const std::string& key, const std::string& prefix,
                    const std::vector<std::string>& names, WorkerConfig& worker) {
  const YAML::Node value = section.take(key);
  if (!value.IsDefined()) {
    return;
  }
  Section durations(value, section.path_of(key), section.complaints());
  for (const std::string& name : names) {
    add_duration(durations, name, 1, worker, prefix);
  }
  durations.done();
}

void read_text(Section& section, const std::string& key, WorkerConfig& worker) {
  if (!section.given(key)) {
    return;
  }
  std::string text;
  section.text(key, text);
  worker.options.emplace_back(key, text);
}

void read_file(Section& section, const std::string& key, const std::string& file,
               WorkerConfig& worker) {
  if (!section.given(key)) {
    return;
  }
  std::string path;
  section.text(key, path);
  worker.options.emplace_back(key, relative_to(file, path));
}

}  // namespace

void read_http_keys(Section& section, const std::string& file, WorkerConfig& worker) {
  if (worker.engine != "http") {
    return refuse_keys_of(
        "http",
        {"url", "upstream_model", "protocol", "health", "key_file", "headers", "ca", "timeouts",
         "linger", "max_answer", "max_error_body", "backoff", "max_hold"},
        section, worker);
  }
  read_urls(section, worker);
  read_text(section, "upstream_model", worker);
  if (section.has("protocol")) {
    std::string protocol = "openai";
    section.choice("protocol", protocol, {"openai", "kserve", "plain"});
    worker.options.emplace_back("protocol", protocol);
  }
  read_text(section, "health", worker);
  if (!worker.options.empty() && worker.options.back().first == "health" &&
      worker.options.back().second.front() != '/') {
    section.complain("health", "must be a path, like /health");
  }
  read_file(section, "key_file", file, worker);
  read_file(section, "ca", file, worker);
  read_headers(section, worker);
  read_durations(section, "timeouts", "",
                 {"connect", "idle", "first_event", "event_idle", "after_finish", "total"}, worker);
  read_durations(section, "backoff", "backoff_", {"first", "most"}, worker);
  add_duration(section, "linger", 0, worker);
  add_duration(section, "max_hold", 0, worker);
  add_size(section, "max_answer", 1, kMaxBytes, worker);
  add_size(section, "max_error_body", 1, kMaxBytes, worker);
}

}  // namespace penstock::queue
