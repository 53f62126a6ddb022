#include "worker/ctl/batch.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "shared/limit/siphash.h"
#include "worker/ctl/json.h"
#include "worker/ctl/table.h"

namespace penstock::ctl {
namespace {

constexpr size_t kMaxIdBytes = 512;
constexpr size_t kMaxUrlBytes = 2048;

// The text of a member; empty when it is none.
std::string text_of(JsonElement object, std::string_view member) {
  std::string_view text;
  return object.at_key(member).get(text) == simdjson::SUCCESS ? std::string(text) : "";
}

bool goes_into_a_request_line(char c) { return c > 0x20 && c < 0x7F && c != '#'; }

// Not a secret: it only has to be the same each time. 128 bits, so that no two requests meet.
std::string key_of(const BatchRequest& request) {
  std::string all;
  for (const std::string* part : {&request.custom_id, &request.url, &request.body}) {
    all += std::to_string(part->size()) + ":" + *part;
  }
  const limit::Hash128 hash = limit::SipState<2, 4>({1, 2}).hash128(all.data(), all.size());
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.hi),
                static_cast<unsigned long long>(hash.lo));
  return text;
}

std::string begin_line(const BatchRequest& request) {
  return R"({"id":"batch_req_)" + request.key + R"(","custom_id":)" + json_text(request.custom_id) +
         R"(,"response":)";
}

std::string system_error() { return std::strerror(errno); }

}  // namespace

// ---- one request ----

Result<BatchRequest> parse_request(std::string_view line) {
  simdjson::dom::parser parser;
  JsonElement root;
  if (!parse_object(parser, line, root)) {
    return Error{
        R"(is no JSON object; it should be {"custom_id":…,"method":"POST","url":…,"body":…})"};
  }
  BatchRequest request;
  request.custom_id = text_of(root, "custom_id");
  request.url = text_of(root, "url");
  if (request.custom_id.empty() || request.custom_id.size() > kMaxIdBytes) {
    return Error{"custom_id must be text of 1 to " + std::to_string(kMaxIdBytes) + " bytes"};
  }
  if (text_of(root, "method") != "POST") {
    return Error{"method must be \"POST\""};
  }
  if (!request.url.starts_with('/') || request.url.size() > kMaxUrlBytes ||
      !std::all_of(request.url.begin(), request.url.end(), goes_into_a_request_line)) {
    return Error{"url must be a path, as /v1/completions; --url says where the edge is"};
  }
  const auto body = object_of(root, "body");
  if (!body) {
    return Error{"body must be a JSON object"};
  }
  request.body = simdjson::minify(*body);
  request.key = key_of(request);
  return request;
}

std::string result_line(const BatchRequest& request, const BatchResponse& response) {
  simdjson::dom::parser parser;
  JsonElement body;
  const bool is_json =
      parser.parse(response.body.data(), response.body.size()).get(body) == simdjson::SUCCESS;
  return begin_line(request) + R"({"status_code":)" + std::to_string(response.status) +
         R"(,"request_id":)" +
         (response.request_id.empty() ? "null" : json_text(response.request_id)) + R"(,"body":)" +
         (is_json ? std::string(simdjson::minify(body)) : json_text(response.body)) +
         "},\"error\":null}\n";
}

std::string error_line(const BatchRequest& request, std::string_view code,
                       std::string_view message) {
  return begin_line(request) + R"(null,"error":{"code":)" + json_text(code) + R"(,"message":)" +
         json_text(message) + "}}\n";
}

// ---- the requests ----

Result<BatchFile> BatchFile::open(const std::string& path) {
  BatchFile batch(path);
  if (!batch.file_) {
    return Error{path + " cannot be read: " + system_error()};
  }
  std::unordered_map<std::string, size_t> numbers;
  std::string line;
  std::streamoff offset = 0;
  for (size_t number = 1; std::getline(batch.file_, line); ++number) {
    const std::streamoff begin =
        std::exchange(offset, offset + static_cast<std::streamoff>(line.size()) + 1);
    if (line.find_first_not_of(" \t\r") == std::string::npos) {
      continue;
    }
    const auto request = line.size() > kMaxLineBytes
                             ? Error{"is longer than " + std::to_string(kMaxLineBytes) + " bytes"}
                             : parse_request(line);
    const std::string where = path + ":" + std::to_string(number) + ": ";
    if (!request) {
      return Error{where + request.error().message};
    }
    if (const auto [first, fresh] = numbers.emplace(request->custom_id, number); !fresh) {
      return Error{where + "custom_id '" + printable(request->custom_id) + "' is that of line " +
                   std::to_string(first->second) + ", too"};
    }
    batch.lines_.push_back({begin, request->custom_id});
  }
  if (batch.file_.bad() || batch.lines_.empty()) {
    return Error{path + (batch.file_.bad() ? " cannot be read to its end" : " holds no requests")};
  }
  return batch;
}

Result<BatchRequest> BatchFile::read(size_t i) {
  std::string line;
  file_.clear();
  file_.seekg(lines_[i].offset);
  std::getline(file_, line);
  auto request = parse_request(line);
  if (!request || request->custom_id != lines_[i].custom_id) {
    return Error{path_ + " was changed meanwhile: request '" + printable(lines_[i].custom_id) +
                 "' is not where it was"};
  }
  return request;
}

// ---- the results ----

Result<ResultsFile> ResultsFile::open(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!fd.valid()) {
    return Error{path + " cannot be written: " + system_error()};
  }
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return Error{path + " is being written by another submit"};
  }
  ResultsFile results(path, std::move(fd));
  if (const Status read = results.read_earlier(); !read) {
    return read.error();
  }
  return results;
}

Status ResultsFile::read_earlier() {
  std::ifstream file(path_, std::ios::binary);
  simdjson::dom::parser parser;
  std::string line;
  std::streamoff whole = 0;
  for (size_t number = 1; std::getline(file, line) && !file.eof(); ++number) {
    JsonElement root;
    const bool good = parse_object(parser, line, root);
    const std::string id = good ? text_of(root, "custom_id") : "";
    if (id.empty()) {
      return Error{path_ + ":" + std::to_string(number) +
                   ": is no result of a batch; move the file away, or name another by --output"};
    }
    const auto response = object_of(root, "response");
    const double status = response ? number_of(*response, "status_code") : 0;
    done_[id] = status >= 200 && status < 300;
    whole += static_cast<std::streamoff>(line.size()) + 1;
  }
  if (::ftruncate(fd_.get(), whole) != 0) {
    return Error{path_ + " cannot be cut after its last whole line: " + system_error()};
  }
  return Ok{};
}

Status ResultsFile::append(std::string_view line) {
  while (!line.empty()) {
    const ssize_t size = ::write(fd_.get(), line.data(), line.size());
    if (size < 0 && errno != EINTR) {
      return Error{path_ + " cannot be written: " + system_error()};
    }
    line.remove_prefix(size < 0 ? 0 : static_cast<size_t>(size));
  }
  return Ok{};
}

}  // namespace penstock::ctl
