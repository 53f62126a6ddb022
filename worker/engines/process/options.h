// The engine's options, as penstockd wrote them onto the worker's command line.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/result.h"
#include "worker/pool/engine.h"

namespace penstock::process {

struct Options {
  std::vector<std::string> command;               // the program first: a path, or a name in PATH
  std::vector<std::string> environment;           // "NAME=value": what `env:` says
  std::string user;                               // empty: the worker's own
  std::string folder = "/var/tmp";                // the scratch folders lie there
  int64_t timeout_ns = 3600 * kNsPerSec;          // of a job
  int64_t ready_timeout_ns = 600 * kNsPerSec;     // of a start
  int64_t grace_ns = 5 * kNsPerSec;               // from cancel to TERM, and from TERM to KILL
  int64_t memory_limit_bytes = 0;                 // of a program and all that it forked; 0: none
  int64_t max_scratch_bytes = int64_t{64} << 30;  // on disk, of a program's folders
  int64_t max_result_bytes = int64_t{1} << 30;
  int64_t max_line_bytes = 1 << 20;
  int64_t max_preview_bytes = Sink::kMaxPreviewBytes;
};

// Keys: as in penstock.yaml, times as NAME_ns, sizes in bytes; command.0, command.1, ...
// An Error names the option.
Result<Options> parse_options(const std::map<std::string, std::string>& options);

// The variables of `env:` are in the environment of this process, each behind this prefix:
// everybody on the host can read a command line.
constexpr const char* kEnvironmentPrefix = "PENSTOCK_PROGRAM_";
std::vector<std::string> program_environment(const char* const* environment);

}  // namespace penstock::process
