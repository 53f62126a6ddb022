#include "worker/ctl/console.h"

#include <curl/curl.h>

#include <cstring>
#include <memory>

#include "worker/ctl/json.h"

namespace penstock::ctl {
namespace {

struct Free {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
  void operator()(char* text) const { curl_free(text); }
};
using Handle = std::unique_ptr<CURL, Free>;
using Url = std::unique_ptr<CURLU, Free>;
using Headers = std::unique_ptr<curl_slist, Free>;

// A part of the URL; empty when it has none.
std::string part_of(const Url& url, CURLUPart part) {
  char* text = nullptr;
  const bool there = curl_url_get(url.get(), part, &text, 0) == CURLUE_OK;
  const std::unique_ptr<char, Free> owned(text);
  return there ? owned.get() : "";
}

struct Received {
  std::string body;
  bool too_long = false;
};

size_t receive(const char* bytes, size_t, size_t count, void* context) {
  auto& received = *static_cast<Received*>(context);
  received.too_long = received.body.size() + count > kMaxAnswerBytes;
  if (received.too_long) {
    return 0;
  }
  received.body.append(bytes, count);
  return count;
}

Headers headers_of(const ConsoleQuestion& question) {
  Headers headers(curl_slist_append(nullptr, "Accept: application/json"));
  if (!question.key.empty()) {
    curl_slist_append(headers.get(), ("Penstock-Key: " + question.key).c_str());
  }
  return headers;
}

void set_options(CURL* handle, const ConsoleQuestion& question, const Headers& headers,
                 Received& received, char* reason) {
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, reason);
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_URL, question.url.full.c_str());
  curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, question.method);
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(handle, CURLOPT_USERAGENT, "penstockctl");
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(handle, CURLOPT_PROXY, "");
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, kConnectTimeoutMs);
  curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, kTotalTimeoutMs);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, receive);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &received);
  if (!question.unix_socket.empty()) {
    curl_easy_setopt(handle, CURLOPT_UNIX_SOCKET_PATH, question.unix_socket.c_str());
  }
}

// `sent`: the question had left before it went wrong.
Error unreachable(const ConsoleQuestion& question, const std::string& reason, bool sent) {
  const std::string through =
      question.unix_socket.empty() ? "" : " through " + question.unix_socket;
  if (sent && std::strcmp(question.method, "GET") != 0) {
    return Error{"the console at " + question.url.shown + through + " gave no answer: " + reason +
                 ". It has the order, which may yet be carried out: `penstockctl limits` tells"};
  }
  return Error{"cannot ask the console at " + question.url.shown + through + ": " + reason +
               "; is Nginx up, and is that its penstock_console location? Say where with --url, "
               "--unix-socket or PENSTOCK_CONSOLE"};
}

// What is to be done about a status that comes without a word.
const char* advice(long status) {
  if (status >= 300 && status < 400) {
    return "redirects are not followed; say the final address with --url";
  }
  switch (status) {
    case 401:
    case 403:
      return "its location in nginx.conf lets others in, but not you";
    case 404:
    case 405:
      return "that is no penstock_console location; say which is with --url or PENSTOCK_CONSOLE";
    default:
      return "Nginx's error log may say why";
  }
}

}  // namespace

Result<ConsoleUrl> console_url(const std::string& console, std::string_view path,
                               std::string_view zone) {
  const Url url(curl_url());
  const CURLUcode code = curl_url_set(url.get(), CURLUPART_URL, console.c_str(), 0);
  const std::string scheme = part_of(url, CURLUPART_SCHEME);
  if (code != CURLUE_OK || (scheme != "http" && scheme != "https")) {
    return Error{"the console's URL must be like http://127.0.0.1:8080/console"};
  }
  if (!part_of(url, CURLUPART_QUERY).empty() || !part_of(url, CURLUPART_FRAGMENT).empty()) {
    return Error{"the console's URL must have neither a query nor a fragment"};
  }
  std::string whole = part_of(url, CURLUPART_PATH);
  whole.erase(whole.find_last_not_of('/') + 1);
  whole.append("/").append(path);
  bool fine = curl_url_set(url.get(), CURLUPART_PATH, whole.c_str(), 0) == CURLUE_OK;
  if (!zone.empty()) {
    const std::string query = "zone=" + std::string(zone);
    fine = fine && curl_url_set(url.get(), CURLUPART_QUERY, query.c_str(),
                                CURLU_URLENCODE | CURLU_APPENDQUERY) == CURLUE_OK;
  }
  if (!fine) {
    return Error{"the console's URL is too long"};
  }
  ConsoleUrl out;
  out.full = part_of(url, CURLUPART_URL);
  curl_url_set(url.get(), CURLUPART_USER, nullptr, 0);
  curl_url_set(url.get(), CURLUPART_PASSWORD, nullptr, 0);
  out.shown = part_of(url, CURLUPART_URL);
  return out;
}

Result<std::string> judge_answer(const ConsoleUrl& url, long status, std::string body) {
  if (status >= 200 && status < 300) {
    if (is_object(body)) {
      return body;
    }
    return Error{"what answers at " + url.shown +
                 " is no console: its answer is no JSON object. Say where the console is with "
                 "--url or PENSTOCK_CONSOLE"};
  }
  simdjson::dom::parser parser;
  JsonElement problem;
  std::string detail = "-";
  if (parse_object(parser, body, problem)) {
    detail = cell(problem, "detail");
  }
  return Error{"the console at " + url.shown + " answered " + std::to_string(status) + ": " +
               (detail != "-" ? detail : advice(status))};
}

Result<std::string> ask_console(const ConsoleQuestion& question) {
  const Handle handle(curl_easy_init());
  const Headers headers = headers_of(question);
  if (handle == nullptr || headers == nullptr) {
    return Error{"libcurl cannot be used: there is no memory for it"};
  }
  Received received;
  char reason[CURL_ERROR_SIZE] = "";
  set_options(handle.get(), question, headers, received, reason);
  const CURLcode code = curl_easy_perform(handle.get());
  if (received.too_long) {
    return Error{"the answer of " + question.url.shown + " is longer than " +
                 std::to_string(kMaxAnswerBytes) + " bytes; is that a console?"};
  }
  if (code != CURLE_OK) {
    curl_off_t sent_us = 0;
    curl_easy_getinfo(handle.get(), CURLINFO_PRETRANSFER_TIME_T, &sent_us);
    return unreachable(question, reason[0] != '\0' ? reason : curl_easy_strerror(code),
                       sent_us > 0);
  }
  long status = 0;
  curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
  return judge_answer(question.url, status, std::move(received.body));
}

}  // namespace penstock::ctl
