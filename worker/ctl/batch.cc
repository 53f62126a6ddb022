#include "worker/ctl/batch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "shared/limit/siphash.h"
#include "worker/ctl/json.h"
#include "worker/ctl/table.h"
#include "worker/ctl/verbatim_json.h"

namespace penstock::ctl {
namespace {

constexpr size_t kMaxIdBytes = 512;
constexpr size_t kMaxUrlBytes = 2048;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

std::string_view without_mark(std::string_view line) {
  return line.substr(line.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0);
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
  const auto read = VerbatimObject::read(without_mark(line));
  if (!read) {
    return Error{"is no JSON object: " + read.error().message +
                 R"(; it should be {"custom_id":…,"method":"POST","url":…,"body":…})"};
  }
  const VerbatimObject& object = *read;
  BatchRequest request;
  request.custom_id = object.text("custom_id");
  request.url = object.text("url");
  if (request.custom_id.empty() || request.custom_id.size() > kMaxIdBytes) {
    return Error{"custom_id must be text of 1 to " + std::to_string(kMaxIdBytes) + " bytes"};
  }
  if (object.text("method") != "POST") {
    return Error{"method must be \"POST\""};
  }
  if (!request.url.starts_with('/') || request.url.size() > kMaxUrlBytes ||
      !std::all_of(request.url.begin(), request.url.end(), goes_into_a_request_line)) {
    return Error{"url must be a path, as /v1/completions; --url says where the edge is"};
  }
  if (!object["body"].starts_with('{')) {
    return Error{"body must be a JSON object"};
  }
  request.body = compact_json(object["body"]);
  request.key = key_of(request);
  return request;
}

std::string result_line(const BatchRequest& request, const BatchResponse& response) {
  const bool is_json = bool{check_json(response.body)};
  return fmt::format(R"({}{{"status_code":{},"request_id":{},"body":{}}},"error":null}})"
                     "\n",
                     begin_line(request), response.status,
                     response.request_id.empty() ? "null" : json_text(response.request_id),
                     is_json ? compact_json(response.body) : json_text(response.body));
}

std::string error_line(const BatchRequest& request, std::string_view code,
                       std::string_view message) {
  return begin_line(request) + R"(null,"error":{"code":)" + json_text(code) + R"(,"message":)" +
         json_text(message) + "}}\n";
}

// ---- the requests ----

namespace {

// Line by line, each bounded, from whatever can be read.
class LineReader {
 public:
  explicit LineReader(int fd) : fd_(fd) {}

  // False at the end, and when it failed(). Of a line that is too long no more is kept than shows
  // that.
  bool next(std::string& line) {
    line.clear();
    for (;;) {
      const size_t end = std::min(buffer_.find('\n', at_), buffer_.size());
      line.append(buffer_, at_, end - at_);
      at_ = end + 1;
      if (end < buffer_.size() || line.size() > kMaxLineBytes) {
        return true;
      }
      if (!fill()) {
        return !line.empty();
      }
    }
  }
  bool failed() const { return failed_; }

 private:
  bool fill() {
    buffer_.resize(256U << 10);
    ssize_t size = 0;
    do {
      size = ::read(fd_, buffer_.data(), buffer_.size());
    } while (size < 0 && errno == EINTR);
    failed_ = size < 0;
    buffer_.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
    at_ = 0;
    return size > 0;
  }

  int fd_;
  std::string buffer_;
  size_t at_ = 0;
  bool failed_ = false;
};

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t size = ::write(fd, bytes.data(), bytes.size());
    if (size < 0 && errno != EINTR) {
      return false;
    }
    bytes.remove_prefix(size < 0 ? 0 : static_cast<size_t>(size));
  }
  return true;
}

Fd unnamed_file() {
  const char* const folder = std::getenv("TMPDIR");
  std::string path = folder != nullptr && *folder != '\0' ? folder : "/tmp";
  path += "/penstockctl.XXXXXX";
  Fd fd(::mkostemp(path.data(), O_CLOEXEC));
  if (fd.valid()) {
    ::unlink(path.c_str());
  }
  return fd;
}

}  // namespace

bool can_be_read_again(const std::string& path) {
  struct stat status {};
  return path != "-" && (::stat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode));
}

Result<BatchFile> BatchFile::open(const std::string& path) {
  BatchFile batch(path == "-" ? "the standard input" : path);
  Fd input(path == "-" ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!input.valid()) {
    return Error{batch.path_ + " cannot be read: " + system_error()};
  }
  const bool keep = !can_be_read_again(path);
  if (keep) {
    batch.file_ = unnamed_file();
    if (!batch.file_.valid()) {
      return Error{"what comes by a pipe cannot be kept in $TMPDIR: " + system_error()};
    }
  }
  if (const Status read = batch.read_all(input.get(), keep); !read) {
    return read.error();
  }
  if (!keep) {
    batch.file_ = std::move(input);
  }
  return batch;
}

// `keep`: what is read is written to file_.
Status BatchFile::read_all(int input, bool keep) {
  LineReader reader(input);
  std::unordered_map<std::string, size_t> numbers;
  std::string line;
  uint64_t offset = 0;
  for (size_t number = 1; reader.next(line); ++number) {
    const std::string where = fmt::format("{}:{}: ", path_, number);
    const uint64_t begin = std::exchange(offset, offset + line.size() + 1);
    if (without_mark(line).find_first_not_of(" \t\r") == std::string::npos) {
      offset -= keep ? line.size() + 1 : 0;
      continue;
    }
    if (number == 1 && (line.starts_with("\xFF\xFE") || line.starts_with("\xFE\xFF"))) {
      return Error{where + "is UTF-16; save it as UTF-8"};
    }
    const auto request = line.size() > kMaxLineBytes
                             ? Error{"is longer than " + std::to_string(kMaxLineBytes) + " bytes"}
                             : parse_request(line);
    if (!request) {
      return Error{where + request.error().message};
    }
    if (const auto [first, fresh] = numbers.emplace(request->custom_id, number); !fresh) {
      return Error{fmt::format("{}custom_id '{}' is that of line {}, too", where,
                               printable(request->custom_id), first->second)};
    }
    if (keep && !write_all(file_.get(), line + "\n")) {
      return Error{"what comes by a pipe cannot be kept in $TMPDIR: " + system_error()};
    }
    lines_.push_back({begin, line.size(), request->custom_id});
  }
  if (reader.failed() || lines_.empty()) {
    return Error{path_ + (reader.failed() ? " cannot be read to its end: " + system_error()
                                          : " holds no requests")};
  }
  return Ok{};
}

Result<BatchRequest> BatchFile::read(size_t i) {
  const Line& at = lines_[i];
  std::string line(at.size, '\0');
  size_t size = 0;
  for (ssize_t n = 1; n > 0 && size < line.size(); size += static_cast<size_t>(n)) {
    n = std::max<ssize_t>(::pread(file_.get(), line.data() + size, line.size() - size,
                                  static_cast<off_t>(at.offset + size)),
                          0);
  }
  auto request = parse_request(std::string_view(line).substr(0, size));
  if (!request || request->custom_id != at.custom_id) {
    return Error{path_ + " was changed meanwhile: request '" + printable(at.custom_id) +
                 "' is not where it was"};
  }
  return request;
}

// ---- the results ----

Result<ResultsFile> ResultsFile::open(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!fd.valid()) {
    return Error{path + " cannot be written: " + system_error() + "; name another by --output"};
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
  std::string line;
  std::streamoff whole = 0;
  for (size_t number = 1; std::getline(file, line) && !file.eof(); ++number) {
    const auto result = VerbatimObject::read(line);
    const std::string id = result ? result->text("custom_id") : "";
    if (id.empty()) {
      return Error{
          fmt::format("{}:{}: is no result of a batch; move the file away, or name "
                      "another by --output",
                      path_, number)};
    }
    const auto response = VerbatimObject::read((*result)["response"]);
    done_[id] = response && (*response)["status_code"].starts_with('2');
    whole += static_cast<std::streamoff>(line.size()) + 1;
  }
  if (::ftruncate(fd_.get(), whole) != 0) {
    return Error{path_ + " cannot be cut after its last whole line: " + system_error()};
  }
  return Ok{};
}

Status ResultsFile::append(std::string_view line) {
  return write_all(fd_.get(), line) ? Status(Ok{})
                                    : Error{path_ + " cannot be written: " + system_error()};
}

}  // namespace penstock::ctl
