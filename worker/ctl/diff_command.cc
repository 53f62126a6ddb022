// diff: what a configuration changes.
#include "worker/ctl/json.h"
#include "worker/ctl/operate.h"
#include "worker/ctl/table.h"
#include "worker/queue/config/load_config.h"

namespace penstock::ctl {
namespace {

Result<std::string> change_lines(const std::string& json) {
  simdjson::dom::parser parser;
  JsonElement told;
  if (!parse_object(parser, json, told)) {
    return Error{"penstockd's answer is no JSON object"};
  }
  const std::string file = cell(told, "file");
  if (const std::string error = cell(told, "error"); error != "-") {
    return Error{"a reload would be refused:\n" + error};
  }
  std::string lines;
  for (const JsonElement change : elements_of(told, "changes")) {
    std::string_view text;
    if (change.get(text) == simdjson::SUCCESS) {
      lines += printable(text) + "\n";
    }
  }
  return lines.empty() ? file + " is what runs\n"
                       : lines + "a reload (HUP) brings " + file + " into force\n";
}

}  // namespace

Outcome run_diff(const Arguments& arguments) {
  const auto& words = arguments.words();
  if (words.empty()) {
    return ask_and_tell(arguments, "GET", "/changes", "", change_lines);
  }
  if (words.size() != 2) {
    return misused("diff takes two files, or none: what runs is compared with its file");
  }
  const auto before = queue::load_config(words[0], queue::NamedFiles::kNamed);
  const auto after = queue::load_config(words[1], queue::NamedFiles::kNamed);
  if (!before || !after) {
    return failed((before ? after : before).error());
  }
  std::string lines;
  for (const std::string& change : after->settings.changes_since(before->settings)) {
    lines += printable(change) + "\n";
  }
  return {Outcome::kFine, lines};
}

}  // namespace penstock::ctl
