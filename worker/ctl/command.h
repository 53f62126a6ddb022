// What penstockctl can be told to do: one Command each, listed in commands().
//
// A command asks its question and hands back what is to be said; main() prints it. So a later
// command is one file with a run function and one line in commands.cc.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "shared/base/result.h"
#include "worker/ctl/arguments.h"

namespace penstock::ctl {

// How a command ended, and what it has to say: on stdout when it went well, else on stderr.
struct Outcome {
  static constexpr int kFine = 0;
  static constexpr int kFailed = 1;
  static constexpr int kMisused = 2;  // the command line is wrong; its usage is shown, too
  int exit_status = kFine;
  std::string text;   // ends with a line feed when it went well
  bool told = false;  // what is to be said goes to stdout, however it ended
};

inline Outcome failed(const Error& error) { return {Outcome::kFailed, error.message}; }
inline Outcome misused(std::string message) { return {Outcome::kMisused, std::move(message)}; }
// JSON as it was received, whole lines.
inline Outcome as_received(std::string json) {
  if (!json.ends_with('\n')) {
    json += '\n';
  }
  return {Outcome::kFine, std::move(json)};
}

struct Command {
  std::string_view name;
  std::string_view words;    // what stands behind it: "KEY [show|reset]"
  std::string_view summary;  // one line
  std::span<const Flag> flags;
  Outcome (*run)(const Arguments& arguments);
};

std::span<const Command> commands();

Outcome run_status(const Arguments& arguments);
Outcome run_top(const Arguments& arguments);
Outcome run_diff(const Arguments& arguments);
Outcome run_jobs(const Arguments& arguments);
Outcome run_job(const Arguments& arguments);
Outcome run_cancel(const Arguments& arguments);
Outcome run_dead(const Arguments& arguments);
Outcome run_replay(const Arguments& arguments);
Outcome run_pause(const Arguments& arguments);
Outcome run_resume(const Arguments& arguments);
Outcome run_drain(const Arguments& arguments);
Outcome run_scale(const Arguments& arguments);
Outcome run_upgrade(const Arguments& arguments);
Outcome run_backup(const Arguments& arguments);
Outcome run_restore(const Arguments& arguments);
Outcome run_check(const Arguments& arguments);
Outcome run_repair(const Arguments& arguments);
Outcome run_export(const Arguments& arguments);
Outcome run_purge(const Arguments& arguments);
Outcome run_doctor(const Arguments& arguments);
Outcome run_submit(const Arguments& arguments);
Outcome run_limits(const Arguments& arguments);
Outcome run_offenders(const Arguments& arguments);
Outcome run_usage(const Arguments& arguments);
Outcome run_keys(const Arguments& arguments);

// nullptr: there is none of that name; what is said of it names the nearest one.
const Command* find_command(std::string_view name);
std::string no_command(std::string_view name);

// Every command's line, or one command's with its options.
std::string usage();
std::string usage(const Command& command);

}  // namespace penstock::ctl
