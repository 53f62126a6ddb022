#include <algorithm>
#include <array>

#include "worker/ctl/command.h"

namespace penstock::ctl {
namespace {

constexpr Flag kJson{"json", 0, "", "the answer as it came, for programs"};
constexpr Flag kUrl{"url", 0, "URL",
                    "the edge's penstock_console location; else $PENSTOCK_CONSOLE, else "
                    "http://127.0.0.1:8080/console"};
constexpr Flag kUnixSocket{"unix-socket", 0, "PATH", "reach the edge through this socket"};

constexpr std::array kStatusFlags = {
    kJson,
    Flag{"socket", 's', "SOCKET", "where penstockd listens (/run/penstock/penstock.sock)"},
    Flag{"config", 'c', "FILE", "a penstock.yaml that says where"},
};
constexpr std::array kLimitsFlags = {
    kJson,
    kUrl,
    kUnixSocket,
    Flag{"zone", 0, "NAME", "of this zone only"},
    Flag{"all", 0, "", "counters that are at rest, too"},
};
constexpr std::array kOffendersFlags = {kJson, kUrl, kUnixSocket};

constexpr std::array kCommands = {
    Command{"status", "", "queues, workers and counters of a running penstockd", kStatusFlags,
            run_status},
    Command{"limits", "KEY [show|reset]",
            "what is counted for a key, or forget it; KEY - is read from the standard input",
            kLimitsFlags, run_limits},
    Command{"offenders", "", "the keys that were refused most", kOffendersFlags, run_offenders},
};

std::string option_of(const Flag& flag) {
  std::string out = flag.letter != 0 ? std::string{'-', flag.letter, ',', ' '} : std::string();
  out.append("--").append(flag.name);
  if (!flag.value.empty()) {
    out.append(" ").append(flag.value);
  }
  return out;
}

std::string line_of(const Command& command) {
  std::string out(command.name);
  return command.words.empty() ? out : out.append(" ").append(command.words);
}

// "  left      right": the left column as wide as `width`.
std::string row(std::string left, size_t width, std::string_view right) {
  left.resize(std::max(left.size(), width), ' ');
  return "  " + left + "  " + std::string(right) + "\n";
}

}  // namespace

std::span<const Command> commands() { return kCommands; }

std::string usage() {
  std::string out = "usage: penstockctl COMMAND [OPTION...]\n\n";
  for (const Command& command : kCommands) {
    out += row(line_of(command), 24, command.summary);
  }
  return out + "\npenstockctl COMMAND --help tells a command's options.\n";
}

std::string usage(const Command& command) {
  std::string out = "usage: penstockctl " + line_of(command) + " [OPTION...]\n\n  " +
                    std::string(command.summary) + "\n\n";
  for (const Flag& flag : command.flags) {
    out += row(option_of(flag), 22, flag.help);
  }
  return out;
}

}  // namespace penstock::ctl
