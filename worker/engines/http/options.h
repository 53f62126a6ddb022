// The http engine's options: penstock.yaml's keys of a worker, as they come on its command line
// (--option KEY=VALUE; worker/queue/config/http_keys.h writes them).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/result.h"

namespace penstock::http_engine {

enum class Protocol : uint8_t {
  kOpenai,  // and what speaks like it: bodies are JSON, and answers are read
  kKserve,  // KServe v2, Triton: bodies may hold raw tensors
  kPlain,   // any service: a request may do something, and is never sent again unasked
};

// How long each thing may take, in nanoseconds. No time passes while the caller does not read.
struct Timeouts {
  int64_t connect_ns = 10 * kNsPerSec;
  int64_t idle_ns = 300 * kNsPerSec;         // without a byte, of whatever kind
  int64_t first_event_ns = 600 * kNsPerSec;  // until there is a part of an answer
  int64_t event_idle_ns = 600 * kNsPerSec;   // from one part of it to the next
  int64_t after_finish_ns = 5 * kNsPerSec;   // from the last finish reason to the end
  int64_t total_ns = 3600 * kNsPerSec;
};

// Where requests go: "http://host:port/base", or a Unix socket and the path behind it.
struct Url {
  std::string base;    // without a slash at its end: "http://127.0.0.1:8000/v1"
  std::string query;   // that goes with each request: "?api-version=1", or empty
  std::string socket;  // "/run/vllm.sock"; empty: TCP

  // The address for a caller's path, and for what it asks behind that. A part that both have is
  // there once: .../v1 and /v1/models make .../v1/models.
  std::string of(std::string_view path, std::string_view asked = {}) const;
  // The same for a log, without the query, which may hold a key.
  std::string shown(std::string_view path) const;
};

// http://, https://, or unix:/path/of.sock (then :/base may follow).
Result<Url> parse_url(std::string_view text);

struct Options {
  Url url;
  std::string upstream_model;  // what the server calls the model; empty: what the caller wrote
  Protocol protocol = Protocol::kOpenai;
  std::string health;    // a path that is asked; empty: the url is judged by the jobs alone
  std::string key_file;  // see key.h
  std::string ca;        // certificates that the server's is judged by; empty: the system's
  Timeouts timeouts;
  int64_t linger_ns = -1;  // a cancelled job's slot is held so long; -1: as the server needs it
  int64_t max_answer_bytes = int64_t{1} << 30;
  int64_t max_error_body_bytes = int64_t{64} << 10;
  int64_t backoff_first_ns = kNsPerSec;      // the url rests so long when nobody says how long, ...
  int64_t backoff_most_ns = 30 * kNsPerSec;  // ... twice as long each time, up to this
  int64_t max_hold_ns = 600 * kNsPerSec;     // whatever a server asks for
  std::vector<std::string> headers;          // "Name: value", for each request

  bool has_header(std::string_view name) const;

  // Given elsewhere on the command line:
  std::string model;  // as callers call it
  uint32_t slots = 1;
  uint64_t max_body_bytes = 32U << 20;
};

// An Error names the option, and says what would be right. `headers`: "Name: value\n" each;
// nullptr: none.
Result<Options> parse_options(const std::map<std::string, std::string>& given,
                              const char* headers = nullptr);

}  // namespace penstock::http_engine
