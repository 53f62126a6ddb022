// The commands that ask the edge: limits and offenders.
#include <cstdlib>
#include <iostream>

#include "worker/ctl/command.h"
#include "worker/ctl/console.h"
#include "worker/ctl/key.h"
#include "worker/ctl/limits_table.h"

namespace penstock::ctl {
namespace {

std::string console_of(const Arguments& arguments) {
  const char* const environment = std::getenv("PENSTOCK_CONSOLE");
  const bool set = environment != nullptr && *environment != '\0';
  return arguments.value("url", set ? environment : "http://127.0.0.1:8080/console");
}

// Asks, and says the answer as it came or as `table` tells it.
template <typename Table>
Outcome ask(const Arguments& arguments, const char* method, std::string_view path,
            const std::string& key, Table&& table) {
  auto url = console_url(console_of(arguments), path, arguments.value("zone"));
  if (!url) {
    return misused(url.error().message);
  }
  auto answer = ask_console({method, *std::move(url), arguments.value("unix-socket"), key});
  if (!answer) {
    return failed(answer.error());
  }
  if (arguments.has("json")) {
    return as_received(*std::move(answer));
  }
  Result<std::string> text = table(*answer);
  return text ? Outcome{Outcome::kFine, *std::move(text)} : failed(text.error());
}

}  // namespace

Outcome run_limits(const Arguments& arguments) {
  const auto& words = arguments.words();
  const std::string action = words.size() == 2 ? words[1] : "show";
  if (words.empty() || words.size() > 2 || (action != "show" && action != "reset")) {
    return misused("limits takes a key, then show or reset");
  }
  const auto key = read_key(words[0], std::cin);
  if (!key) {
    return misused(key.error().message);
  }
  if (action == "reset") {
    return ask(arguments, "DELETE", "limits", *key, reset_line);
  }
  const bool all = arguments.has("all");
  return ask(arguments, "GET", "limits", *key,
             [&](const std::string& json) { return limits_table(json, all); });
}

Outcome run_offenders(const Arguments& arguments) {
  if (!arguments.words().empty()) {
    return misused("offenders takes no '" + arguments.words()[0] + "'");
  }
  return ask(arguments, "GET", "offenders", "", offenders_table);
}

}  // namespace penstock::ctl
