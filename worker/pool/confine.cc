#include "worker/pool/confine.h"

#include <sys/prctl.h>
#include <sys/resource.h>

#include <fstream>

#include "shared/base/call_failed.h"

namespace penstock {
namespace {

// Never less than it was given.
Status be_killed_early() {
  const std::string path = "/proc/self/oom_score_adj";
  int given = 0;
  std::ifstream(path.c_str()) >> given;
  if (given >= kOomScore) {
    return Ok{};
  }
  std::ofstream file(path);
  file << kOomScore << std::flush;
  return file ? Status(Ok{}) : call_failed(path, "write");
}

}  // namespace

Status confine() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return call_failed("no_new_privs", "prctl");
  }
  const rlimit none{};
  if (::setrlimit(RLIMIT_CORE, &none) != 0) {
    return call_failed("RLIMIT_CORE", "setrlimit");
  }
  return be_killed_early();
}

}  // namespace penstock
