// One question to the console of a running edge (nginx.conf's penstock_console), over HTTP.
#pragma once

#include <string>
#include <string_view>

#include "shared/base/result.h"

namespace penstock::ctl {

constexpr size_t kMaxAnswerBytes = 1U << 20;
constexpr long kConnectTimeoutMs = 2'000;
constexpr long kTotalTimeoutMs = 10'000;

// Where a question goes, checked.
struct ConsoleUrl {
  std::string full;   // http://127.0.0.1:8080/console/limits?zone=edge
  std::string shown;  // the same without a user's name and password, for messages
};

// `console` with "/PATH" behind its own path, and "?zone=ZONE" unless that is empty. An Error says
// what is wrong with `console`: it must be http or https, with neither query nor fragment.
Result<ConsoleUrl> console_url(const std::string& console, std::string_view path,
                               std::string_view zone = "");

struct ConsoleQuestion {
  const char* method = "GET";
  ConsoleUrl url;
  std::string unix_socket;  // empty: over TCP
  std::string key;          // sent as Penstock-Key; empty: no header. REQUIRES: read_key() gave it
};

// The answer's JSON, which is one valid object. An Error names the URL, what went wrong and what to
// do; it never holds the key. Redirects are not followed and proxies not used, since both would
// show the key to somebody else.
Result<std::string> ask_console(const ConsoleQuestion& question);

// What an answer that has arrived means; a part of ask_console().
Result<std::string> judge_answer(const ConsoleUrl& url, long status, std::string body);

}  // namespace penstock::ctl
