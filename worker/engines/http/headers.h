// The head of a server's answer: what counts in it, and which headers the caller gets.
//
// A caller gets only these: they say how the body is to be read, what it cost against the server's
// own limits, and under which name the server's operator finds the request. Everything else is
// between the server and us: cookies, connections, caches, who it is, where it lies.
//
//     content-language, content-disposition, inference-header-content-length,
//     x-request-id, request-id, openai-processing-ms, openai-version, openai-organization,
//     x-ratelimit-*, anthropic-ratelimit-*, retry-after of a 4xx
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::http_engine {

class Head {
 public:
  static constexpr size_t kMaxBytes = 64U << 10;

  // Takes the next line, its end included, as libcurl gives it: 1xx answers and trailers too.
  // False: there are too many.
  bool take(std::string_view line);
  // The body has begun: lines that come now are trailers.
  void close() { closed_ = true; }

  bool begun() const { return bytes_ > 0; }
  int status() const { return status_; }  // 0: no status line was seen
  bool final() const { return closed_ && status_ >= 200; }
  const std::string& content_type() const { return content_type_; }
  int64_t content_length() const { return content_length_; }  // -1: not told
  bool encoded() const { return encoded_; }  // its length is not that of what we pass on
  const std::string& location() const { return location_; }
  const std::string& server() const { return server_; }
  const std::string& retry_after() const { return retry_after_; }
  const std::string& retry_after_ms() const { return retry_after_ms_; }
  // The headers for the caller, "Name: value\n" each.
  std::string allowed() const;

 private:
  void take_header(std::string_view name, std::string_view value);
  void begin(std::string_view line);

  size_t bytes_ = 0;
  bool closed_ = false;
  int status_ = 0;
  std::string content_type_;
  int64_t content_length_ = -1;
  bool encoded_ = false;
  std::string location_;
  std::string server_;
  std::string retry_after_;
  std::string retry_after_ms_;
  std::string allowed_;
  size_t lines_ = 0;  // in allowed_
};

}  // namespace penstock::http_engine
