#include "worker/queue/results/s3_store.h"

#include <fmt/format.h>
#include <strings.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "worker/queue/results/sha256.h"

namespace penstock::queue {
namespace {

constexpr size_t kMostTextBytes = 64U << 10;  // of an answer that is not a result
constexpr uint64_t kMostParts = 10'000;       // of an upload, as S3 allows

constexpr long kOk = 200, kPartial = 206, kRedirect = 300, kForbidden = 403, kNotFound = 404,
               kUnsatisfiable = 416, kTooMany = 429, kServerError = 500;

bool is_good(long status) { return status >= kOk && status < kRedirect; }
bool may_be_done_later(long status) {
  return status == 0 || status == kTooMany || status >= kServerError;
}

// What is between <NAME> and </NAME>, of answers that are read for one text.
std::string xml_text(std::string_view xml, const std::string& name) {
  const size_t begin = xml.find("<" + name + ">");
  const size_t from = begin + name.size() + 2;
  const size_t end = begin == std::string_view::npos ? begin : xml.find("</" + name + ">", from);
  return end == std::string_view::npos ? "" : std::string(xml.substr(from, end - from));
}
std::string xml_escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    escaped += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  }
  return escaped;
}

Result<std::string> digest_of(int file, uint64_t first, uint64_t bytes, const std::string& what) {
  Sha256 digest;
  const auto add = [&](std::string_view more) {
    digest.add(more);
    return true;
  };
  const Status read = read_file(file, first, bytes, what, add);
  return read ? Result<std::string>(digest.hex()) : read.error();
}

}  // namespace

// A request under way.
struct S3Store::Transfer {
  CURL* easy;
  const Asked& asked;
  Answer& answer;
  uint64_t sent = 0;

  static size_t on_send(char* to, size_t size, size_t count, void* user) {
    auto& self = *static_cast<Transfer*>(user);
    const Body& body = self.asked.body;
    const uint64_t most = std::min<uint64_t>(size * count, body.bytes - self.sent);
    const ssize_t read = ::pread(body.file, to, most, static_cast<off_t>(body.first + self.sent));
    if (read < 0 || (read == 0 && most > 0)) {
      return CURL_READFUNC_ABORT;
    }
    self.sent += static_cast<uint64_t>(read);
    return static_cast<size_t>(read);
  }
  static int on_seek(void* user, curl_off_t offset, int origin) {
    if (origin != SEEK_SET) {
      return CURL_SEEKFUNC_CANTSEEK;
    }
    static_cast<Transfer*>(user)->sent = static_cast<uint64_t>(offset);
    return CURL_SEEKFUNC_OK;
  }
  static size_t on_body(char* bytes, size_t size, size_t count, void* user) {
    auto& self = *static_cast<Transfer*>(user);
    const std::string_view more(bytes, size * count);
    if (self.asked.take != nullptr && is_good(curl::status_of(self.easy))) {
      self.answer.bytes += more.size();
      self.answer.stopped = !(*self.asked.take)(more);
      return self.answer.stopped ? 0 : more.size();
    }
    self.answer.text.append(
        more.substr(0, kMostTextBytes - std::min(kMostTextBytes, self.answer.text.size())));
    return more.size();
  }
  static size_t on_header(char* bytes, size_t size, size_t count, void* user) {
    constexpr std::string_view kEtag = "etag:";
    std::string_view line(bytes, size * count);
    if (line.size() > kEtag.size() && ::strncasecmp(line.data(), kEtag.data(), kEtag.size()) == 0) {
      line.remove_prefix(kEtag.size());
      line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
      static_cast<Transfer*>(user)->answer.etag = line.substr(0, line.find_first_of("\r\n"));
    }
    return size * count;
  }

  void set_body() const {
    const Body& body = asked.body;
    if (body.file >= 0) {
      curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
      curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_send);
      curl_easy_setopt(easy, CURLOPT_READDATA, this);
      curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
      curl_easy_setopt(easy, CURLOPT_SEEKDATA, this);
      curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(body.bytes));
    } else if (asked.method == "POST") {
      curl::set_post(easy, body.text);
    } else {
      curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, asked.method.c_str());
    }
  }
};

S3Store::S3Store(Settings settings) : settings_(std::move(settings)), easy_(curl_easy_init()) {}

std::string S3Store::path_of(const std::string& name) const {
  return s3_encoded("/" + settings_.bucket + "/" + settings_.prefix + name, true);
}

std::string S3Store::url_of(const std::string& name, int seconds) const {
  S3Request request{.method = "GET",
                    .path = path_of(name),
                    .query = {},
                    .headers = {{"host", host()}},
                    .sha256 = {}};
  s3_presign(settings_.key, request, std::time(nullptr), seconds);
  return settings_.url + request.path + "?" + s3_query(request);
}

// ---- requests

S3Store::Answer S3Store::ask_once(const Asked& asked) {
  Answer answer;
  const time_t now = std::time(nullptr);
  S3Request request{.method = asked.method,
                    .path = path_of(asked.name),
                    .query = asked.query,
                    .headers = {{"host", host()}, {"x-amz-date", s3_time(now)}},
                    .sha256 = {}};
  if (!asked.body.sha256.empty()) {
    request.sha256 = asked.body.sha256;
  } else if (asked.body.file >= 0) {
    auto digest = digest_of(asked.body.file, asked.body.first, asked.body.bytes, asked.name);
    if (!digest) {
      answer.error = digest.error().message;
      return answer;
    }
    request.sha256 = *std::move(digest);
  } else {
    request.sha256 = Sha256::of(asked.body.text);
  }
  request.headers["x-amz-content-sha256"] = request.sha256;
  if (!asked.range.empty()) {
    request.headers["range"] = asked.range;
  }
  std::vector<std::string> lines = {
      "authorization: " + s3_authorization(settings_.key, request, now),
      "content-type:", "expect:"};
  for (const auto& [name, value] : request.headers) {
    if (name != "host") {
      lines.push_back(fmt::format("{}: {}", name, value));
    }
  }
  CURL* const easy = easy_.get();
  Transfer transfer{.easy = easy, .asked = asked, .answer = answer};
  const std::string query = s3_query(request);
  curl::Headers headers;
  if (easy == nullptr || !curl::append(headers, lines)) {
    answer.error = "no memory";
    return answer;
  }
  curl_easy_reset(easy);
  curl::set_common_options(easy, &transfer);
  curl::set_url(easy, settings_.url + request.path + (query.empty() ? "" : "?" + query));
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, settings_.connect_ms);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, settings_.silent_s);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, Transfer::on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, Transfer::on_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
  transfer.set_body();
  const CURLcode code = curl_easy_perform(easy);
  if (code == CURLE_OK || answer.stopped) {
    answer.status = curl::status_of(easy);
  } else {
    answer.error = curl_easy_strerror(code);
  }
  return answer;
}

// What was taken already is not taken once more.
S3Store::Answer S3Store::ask(const Asked& asked) {
  for (unsigned tried = 1;; ++tried) {
    Answer answer = ask_once(asked);
    if (!may_be_done_later(answer.status) || answer.bytes > 0 || tried >= settings_.tries) {
      return answer;
    }
    ::usleep(static_cast<useconds_t>(settings_.pause_ms * 1000 << (tried - 1)));
  }
}

Error S3Store::error_of(const Asked& asked, const Answer& answer) const {
  const std::string what = asked.method + " " + settings_.url + "/" + settings_.bucket + "/" +
                           settings_.prefix + asked.name;
  if (answer.status == 0) {
    return {what + ": " + answer.error, ErrorKind::kBusy};
  }
  const std::string code = xml_text(answer.text, "Code");
  const ErrorKind kind = answer.status == kNotFound         ? ErrorKind::kGone
                         : answer.status == kUnsatisfiable  ? ErrorKind::kGone
                         : may_be_done_later(answer.status) ? ErrorKind::kBusy
                                                            : ErrorKind::kRefused;
  return {what + ": the server answers " + std::to_string(answer.status) +
              (code.empty() ? "" : ", " + code) +
              (answer.status == kForbidden ? ": look at the key, its rights and the clock" : ""),
          kind};
}

// ---- what a store does

Status S3Store::put_file(const StoredResult& result, int file) {
  if (result.bytes <= settings_.part_bytes) {
    const Asked put{.method = "PUT",
                    .name = result.name,
                    .query = {},
                    .body = {.file = file,
                             .first = 0,
                             .bytes = result.bytes,
                             .text = {},
                             .sha256 = result.sha256},
                    .range = {}};
    const Answer answer = ask(put);
    return is_good(answer.status) ? Status(Ok{}) : error_of(put, answer);
  }
  const Asked begin{
      .method = "POST", .name = result.name, .query = {{"uploads", ""}}, .body = {}, .range = {}};
  const Answer begun = ask(begin);
  const std::string upload = xml_text(begun.text, "UploadId");
  if (!is_good(begun.status) || upload.empty()) {
    return error_of(begin, begun);
  }
  Status done = put_parts(result, file, upload);
  if (!done) {
    ask({.method = "DELETE",
         .name = result.name,
         .query = {{"uploadId", upload}},
         .body = {},
         .range = {}});
  }
  return done;
}

Status S3Store::put_parts(const StoredResult& result, int file, const std::string& upload) {
  const uint64_t part_bytes =
      std::max(settings_.part_bytes, (result.bytes + kMostParts - 1) / kMostParts);
  std::string list = "<CompleteMultipartUpload>";
  uint64_t number = 1;
  for (uint64_t first = 0; first < result.bytes; first += part_bytes, ++number) {
    const Asked put{.method = "PUT",
                    .name = result.name,
                    .query = {{"partNumber", std::to_string(number)}, {"uploadId", upload}},
                    .body = {.file = file,
                             .first = first,
                             .bytes = std::min(part_bytes, result.bytes - first),
                             .text = {},
                             .sha256 = {}},
                    .range = {}};
    const Answer answer = ask(put);
    if (!is_good(answer.status)) {
      return error_of(put, answer);
    }
    list += "<Part><PartNumber>" + std::to_string(number) + "</PartNumber><ETag>" +
            xml_escaped(answer.etag) + "</ETag></Part>";
  }
  const Asked end{.method = "POST",
                  .name = result.name,
                  .query = {{"uploadId", upload}},
                  .body = {.text = list + "</CompleteMultipartUpload>"},
                  .range = {}};
  const Answer answer = ask(end);
  // It says 200 before it knows, and may say an error behind it.
  const bool failed = answer.text.find("<Error>") != std::string::npos;
  return is_good(answer.status) && !failed ? Status(Ok{}) : error_of(end, answer);
}

Status S3Store::read_part(const std::string& name, uint64_t first, uint64_t bytes,
                          const Take& take) {
  const Asked get{
      .method = "GET",
      .name = name,
      .query = {},
      .body = {},
      .range = "bytes=" + std::to_string(first) + "-" + std::to_string(first + bytes - 1),
      .take = &take};
  const Answer answer = ask(get);
  if (answer.stopped) {
    return Ok{};
  }
  if (!is_good(answer.status)) {
    return error_of(get, answer);
  }
  if (answer.status != kPartial || answer.bytes != bytes) {
    return Error{"GET " + name + ": the server gives " + std::to_string(answer.bytes) +
                     " bytes of " + std::to_string(bytes),
                 answer.bytes < bytes ? ErrorKind::kGone : ErrorKind::kCorrupt};
  }
  return Ok{};
}

Status S3Store::remove_file(const std::string& name) {
  const Asked remove{.method = "DELETE", .name = name, .query = {}, .body = {}, .range = {}};
  const Answer answer = ask(remove);
  return is_good(answer.status) || answer.status == kNotFound ? Status(Ok{})
                                                              : error_of(remove, answer);
}

}  // namespace penstock::queue
