// upgrade: the program that penstockd was started as takes its place.
#include <cstdio>

#include "worker/ctl/json.h"
#include "worker/ctl/operate.h"

namespace penstock::ctl {
namespace {

constexpr int kPatienceSeconds = 300;  // as long as a start may take: a large state is read

std::string count(const JsonElement& told, const char* one, const char* several) {
  const std::string number = cell(told, several);
  return number + " " + (number == "1" ? one : several);
}

// Whom and what it concerns, in a line.
std::string counts(const JsonElement& told) {
  return count(told, "connection", "connections") + ", " + count(told, "process", "processes") +
         " and " + count(told, "job", "jobs");
}

Result<std::string> before(const std::string& json) {
  simdjson::dom::parser parser;
  JsonElement told;
  if (!parse_object(parser, json, told)) {
    return Error{"penstockd's answer is no JSON object"};
  }
  std::string text = cell(told, "program") + " can take over: version " + cell(told, "from") +
                     " to " + cell(told, "to") + ", with " + counts(told) + "\n";
  for (const JsonElement& each : elements_of(told, "not_kept")) {
    std::string_view line;
    if (each.get(line) == simdjson::SUCCESS) {
      text.append("not kept: ").append(line).append("\n");
    }
  }
  return text;
}

Result<std::string> after(const std::string& json) {
  simdjson::dom::parser parser;
  JsonElement told;
  if (!parse_object(parser, json, told)) {
    return Error{"penstockd's answer is no JSON object"};
  }
  return "upgraded from version " + cell(told, "from") + " to " + cell(told, "to") + ": " +
         counts(told) + " go on\n";
}

}  // namespace

Outcome run_upgrade(const Arguments& arguments) {
  if (!arguments.words().empty()) {
    return misused("upgrade takes no name");
  }
  return with_penstockd(arguments, [&](Penstockd& penstockd) {
    penstockd.wait_up_to(kPatienceSeconds);
    auto possible = penstockd.ask("GET", "/upgrade");
    if (!possible || arguments.has("dry-run")) {
      return possible ? tell(arguments, *std::move(possible), before) : failed(possible.error());
    }
    if (!arguments.has("json")) {  // what is lost is said before it is
      const Result<std::string> text = before(*possible);
      std::fputs(text ? text->c_str() : "", stdout);
      std::fflush(stdout);
    }
    auto done = penstockd.ask("POST", "/upgrade");
    return done ? tell(arguments, *std::move(done), after) : failed(done.error());
  });
}

}  // namespace penstock::ctl
