// penstockctl: the operator's tool. The commands are in command.h.
#include <algorithm>
#include <cstdio>
#include <span>

#include "shared/base/version.h"
#include "worker/ctl/command.h"
#include "worker/ctl/watch.h"

namespace {

using penstock::ctl::Arguments;
using penstock::ctl::Command;
using penstock::ctl::Outcome;

int say(const std::string& text) {
  const bool said = std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
  return said ? Outcome::kFine : Outcome::kFailed;
}

int end(const Outcome& outcome, const std::string& usage) {
  if (outcome.exit_status == Outcome::kFine) {
    return say(outcome.text);
  }
  if (outcome.told) {
    return std::max(outcome.exit_status, say(outcome.text));
  }
  std::fprintf(stderr, "penstockctl: %s\n", outcome.text.c_str());
  if (outcome.exit_status == Outcome::kMisused && !usage.empty()) {
    std::fprintf(stderr, "\n%s", usage.c_str());
  }
  return outcome.exit_status;
}

constexpr std::string_view kHelp = "help";

bool asks_for_help(std::string_view argument) { return argument == "--help" || argument == "-h"; }

}  // namespace

int main(int argc, char** argv) {
  if (penstock::say_version("penstockctl", argc, argv)) {
    return std::fflush(stdout) == 0 ? Outcome::kFine : Outcome::kFailed;
  }
  const std::span<const char* const> typed(argv + std::min(argc, 1), argv + argc);
  if (typed.empty()) {
    std::fputs(penstock::ctl::usage().c_str(), stderr);
    return Outcome::kMisused;
  }
  if (asks_for_help(typed[0]) || (typed[0] == kHelp && typed.size() == 1)) {
    return say(penstock::ctl::usage());
  }
  const bool help = typed[0] == kHelp;
  const std::string_view name = typed[help ? 1 : 0];
  const Command* const command = penstock::ctl::find_command(name);
  if (command == nullptr) {
    return end(penstock::ctl::misused(penstock::ctl::no_command(name)), "");
  }
  if (help) {
    return say(usage(*command));
  }
  const auto rest = typed.subspan(1);
  if (!rest.empty() && asks_for_help(rest[0])) {
    return say(usage(*command));
  }
  const auto arguments = Arguments::parse(rest, command->flags);
  if (!arguments) {
    return end(penstock::ctl::misused(arguments.error().message), usage(*command));
  }
  return end(arguments->has("watch") ? watch(*command, *arguments) : command->run(*arguments),
             usage(*command));
}
