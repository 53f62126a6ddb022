#include "worker/ctl/edge.h"

#include <strings.h>

#include <algorithm>
#include <string_view>

namespace penstock::ctl {
namespace {

constexpr long kConnectTimeoutMs = 10'000;
constexpr long kTotalTimeoutS = 3600;
// Those that take longer are promised, and asked for again.
constexpr char kPrefer[] = "Prefer: respond-async, wait=5";

std::string part_of(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  const bool there = curl_url_get(url, part, &text, 0) == CURLUE_OK;
  std::string out = there ? text : "";
  curl_free(text);
  return out;
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = std::min(text.find_first_not_of(" \t"), text.size());
  text.remove_prefix(begin);
  return text.substr(0, text.find_last_not_of(" \t\r\n") + 1);
}

}  // namespace

Result<Edge> Edge::open(const Options& options) {
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> url(curl_url(), curl_url_cleanup);
  const bool parsed = curl_url_set(url.get(), CURLUPART_URL, options.url.c_str(), 0) == CURLUE_OK;
  const std::string scheme = part_of(url.get(), CURLUPART_SCHEME);
  if (!parsed || (scheme != "http" && scheme != "https") ||
      !part_of(url.get(), CURLUPART_QUERY).empty() ||
      !part_of(url.get(), CURLUPART_FRAGMENT).empty() ||
      !part_of(url.get(), CURLUPART_USER).empty()) {
    return Error{"the edge's URL must be like http://127.0.0.1:8080"};
  }
  Edge edge;
  const std::string port = part_of(url.get(), CURLUPART_PORT);
  edge.origin_ =
      scheme + "://" + part_of(url.get(), CURLUPART_HOST) + (port.empty() ? "" : ":" + port);
  std::string path = part_of(url.get(), CURLUPART_PATH);
  path.erase(path.find_last_not_of('/') + 1);
  edge.base_ = edge.origin_ + path;
  edge.unix_socket_ = options.unix_socket;
  if (!options.key.empty()) {
    const bool has_scheme = options.key.find(' ') != std::string::npos;
    edge.authorization_ =
        "Authorization: " + (has_scheme ? "" : std::string("Bearer ")) + options.key;
  }
  edge.multi_.reset(curl_multi_init());
  return edge;
}

std::string Edge::path_of(const std::string& location) const {
  std::string_view path = location;
  if (path.starts_with(origin_)) {
    path.remove_prefix(origin_.size());
  }
  const std::string_view before = std::string_view(base_).substr(origin_.size());
  if (path.starts_with("//") || !path.starts_with(before)) {
    return "";
  }
  path.remove_prefix(before.size());
  return path.starts_with('/') ? std::string(path) : "";
}

size_t Edge::receive(const char* bytes, size_t, size_t count, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  EdgeAnswer& answer = transfer.question->answer;
  answer.too_long = answer.body.size() + count > kMaxBodyBytes;
  if (answer.too_long) {
    return 0;
  }
  answer.body.append(bytes, count);
  return count;
}

size_t Edge::read_header(const char* bytes, size_t, size_t count, void* context) {
  EdgeAnswer& answer = static_cast<Transfer*>(context)->question->answer;
  const std::string_view line(bytes, count);
  const size_t colon = std::min(line.find(':'), line.size());
  const std::string name(line.substr(0, colon));
  const std::string_view value = trimmed(line.substr(std::min(colon + 1, line.size())));
  if (::strcasecmp(name.c_str(), "Location") == 0) {
    answer.location = value;
  } else if (::strcasecmp(name.c_str(), "Penstock-Job-Id") == 0) {
    answer.job_id = value;
  }
  return count;
}

void Edge::set_options(Transfer& transfer) const {
  CURL* const handle = transfer.handle.get();
  const Question& question = *transfer.question;
  curl::set_common_options(handle, &transfer);
  curl::set_url(handle, base_ + question.path);
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, transfer.reason);
  curl_easy_setopt(handle, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, transfer.headers.get());
  curl_easy_setopt(handle, CURLOPT_USERAGENT, "penstockctl");
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, kConnectTimeoutMs);
  curl_easy_setopt(handle, CURLOPT_TIMEOUT, kTotalTimeoutS);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, receive);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, read_header);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, &transfer);
  if (!question.body.empty()) {
    curl::set_post(handle, question.body);
  }
  if (!unix_socket_.empty()) {
    curl_easy_setopt(handle, CURLOPT_UNIX_SOCKET_PATH, unix_socket_.c_str());
  }
}

Status Edge::ask(Question& question) {
  auto transfer = std::make_unique<Transfer>();
  transfer->question = &question;
  question.answer = {};
  std::vector<std::string> headers = {"Accept: application/json"};
  if (!question.body.empty()) {
    headers.insert(headers.end(), {"Content-Type: application/json", "Expect:", kPrefer,
                                   "Idempotency-Key: \"" + question.idempotency_key + "\""});
  }
  if (!authorization_.empty()) {
    headers.push_back(authorization_);
  }
  transfer->handle.reset(curl_easy_init());
  if (transfer->handle == nullptr || !curl::append(transfer->headers, headers)) {
    return Error{"libcurl cannot be used: there is no memory for it"};
  }
  set_options(*transfer);
  if (curl_multi_add_handle(multi_.get(), transfer->handle.get()) != CURLM_OK) {
    return Error{"libcurl takes no more transfers"};
  }
  transfers_.push_back(std::move(transfer));
  return Ok{};
}

void Edge::finish(Transfer& transfer, CURLcode code) {
  EdgeAnswer& answer = transfer.question->answer;
  if (code != CURLE_OK) {
    answer = {.too_long = answer.too_long};
    answer.body = answer.too_long
                      ? "the answer is longer than " + std::to_string(kMaxBodyBytes) + " bytes"
                  : transfer.reason[0] != '\0' ? transfer.reason
                                               : curl_easy_strerror(code);
    return;
  }
  answer.status = static_cast<int>(curl::status_of(transfer.handle.get()));
  answer.retry_after_s = curl::retry_after_s(transfer.handle.get());
}

std::vector<Edge::Question*> Edge::wait(int64_t timeout_ms) {
  int running = 0;
  curl_multi_perform(multi_.get(), &running);
  std::vector<Question*> told;
  curl::each_ended(multi_.get(), [&](CURL* easy, CURLcode code) {
    auto& transfer = curl::transfer_of<Transfer>(easy);
    finish(transfer, code);
    told.push_back(transfer.question);
    curl_multi_remove_handle(multi_.get(), easy);
    std::erase_if(transfers_, [&](const auto& each) { return each.get() == &transfer; });
  });
  if (told.empty()) {
    curl_multi_poll(multi_.get(), nullptr, 0, static_cast<int>(timeout_ms), nullptr);
  }
  return told;
}

}  // namespace penstock::ctl
