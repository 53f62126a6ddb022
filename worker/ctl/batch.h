// Batches: requests in a file, one JSON object a line, and their results in another.
//
// Format: the OpenAI Batch API's (https://platform.openai.com/docs/api-reference/batch):
//
//     in   {"custom_id":"a","method":"POST","url":"/v1/completions","body":{…}}
//     out  {"id":"batch_req_…","custom_id":"a",
//           "response":{"status_code":200,"request_id":"…","body":{…}},"error":null}
//
// A request that was never answered has "response":null and "error":{"code":…,"message":…}.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/result.h"

namespace penstock::ctl {

constexpr size_t kMaxLineBytes = 32U << 20;

struct BatchRequest {
  std::string custom_id;
  std::string url;   // the path and query: "/v1/completions"
  std::string body;  // JSON
  std::string key;   // the same for the same request, whenever it is sent: 32 hexadecimal digits
};
// An Error says what is wrong with the line.
Result<BatchRequest> parse_request(std::string_view line);

struct BatchResponse {
  int status = 0;
  std::string request_id;
  std::string body;  // embedded if it is JSON, else a string
};
// Whole lines, line feed included.
std::string result_line(const BatchRequest& request, const BatchResponse& response);
std::string error_line(const BatchRequest& request, std::string_view code,
                       std::string_view message);

// False for a pipe, and for "-", the standard input.
bool can_be_read_again(const std::string& path);

// The file of requests. All of it is read and checked once; then each is read when it is wanted.
//
// What can be read but once, a pipe, is kept meanwhile in a file of its own, without a name, in
// $TMPDIR. A byte order mark, as Windows puts before UTF-8, is passed over.
class BatchFile {
 public:
  // "-" is the standard input. An Error names the file, and the line that is wrong.
  static Result<BatchFile> open(const std::string& path);

  size_t size() const { return lines_.size(); }
  const std::string& custom_id(size_t i) const { return lines_[i].custom_id; }
  // The file may have been changed since open().
  Result<BatchRequest> read(size_t i);

 private:
  struct Line {
    uint64_t offset;
    size_t size;
    std::string custom_id;
  };
  explicit BatchFile(std::string path) : path_(std::move(path)) {}
  Status read_all(int input, bool keep);

  std::string path_;
  Fd file_;  // that can be read again
  std::vector<Line> lines_;
};

// The file of results. What is there of an earlier run is kept, but for a line that was cut off
// when that was killed; nobody else can have it open meanwhile.
class ResultsFile {
 public:
  // An Error when it cannot be written, or holds anything else but results.
  static Result<ResultsFile> open(const std::string& path);

  bool has(const std::string& custom_id) const { return done_.contains(custom_id); }
  // Whether the request was answered with 2xx. REQUIRES: its result is there.
  bool succeeded(const std::string& custom_id) const { return done_.at(custom_id); }
  Status append(std::string_view line);

 private:
  ResultsFile(std::string path, Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  Status read_earlier();

  std::string path_;
  Fd fd_;
  std::unordered_map<std::string, bool> done_;
};

}  // namespace penstock::ctl
