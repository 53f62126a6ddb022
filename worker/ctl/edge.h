// Many questions at once to an edge, over HTTP (libcurl).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "shared/base/result.h"
#include "shared/http/curl.h"

namespace penstock::ctl {

// One answer.
struct EdgeAnswer {
  int status = 0;         // 0: none came, and `body` says why
  bool too_long = false;  // it would have; it was broken off
  std::string body;
  std::string location;
  std::string job_id;  // Penstock-Job-Id; empty: it comes from no job
  int64_t retry_after_s = 0;
};

class Edge {
 public:
  static constexpr size_t kMaxBodyBytes = 64U << 20;
  struct Options {
    std::string url;          // "http://127.0.0.1:8080": what comes before "/v1/..."
    std::string unix_socket;  // empty: over TCP
    std::string key;          // empty: no Authorization
  };
  // An Error says what is wrong with the URL.
  static Result<Edge> open(const Options& options);

  struct Question {
    std::string path;             // behind the edge's URL
    std::string body;             // empty: GET
    std::string idempotency_key;  // with a body
    EdgeAnswer answer;            // filled in when it is told
  };
  // The question must live until it was told, or forgotten by the end of this.
  Status ask(Question& question);
  // Waits for at most so long; those that were answered.
  std::vector<Question*> wait(int64_t timeout_ms);

  // The path of a Location, behind the edge's URL; empty: it leads elsewhere.
  std::string path_of(const std::string& location) const;

 private:
  struct Transfer {
    curl::Easy handle;
    curl::Headers headers;
    Question* question = nullptr;
    char reason[CURL_ERROR_SIZE] = "";
  };
  Edge() = default;
  static size_t receive(const char* bytes, size_t, size_t count, void* context);
  static size_t read_header(const char* bytes, size_t, size_t count, void* context);
  void set_options(Transfer& transfer) const;
  void finish(Transfer& transfer, CURLcode code);

  std::string origin_;  // "http://127.0.0.1:8080"
  std::string base_;    // and its path, without a slash at the end
  std::string unix_socket_;
  std::string authorization_;
  curl::Multi multi_;
  std::vector<std::unique_ptr<Transfer>> transfers_;
};

}  // namespace penstock::ctl
