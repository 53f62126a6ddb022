#include "shared/base/exit_status.h"

#include <signal.h>
#include <sys/wait.h>

#include <cstring>

namespace penstock {
namespace {

constexpr int kShellSignalBase = 128;

std::string killed_by(int number) {
  const char* const name = ::strsignal(number);
  return "was killed by signal " + std::to_string(number) + " (" + (name == nullptr ? "?" : name) +
         ")";
}

}  // namespace

std::string exit_words(int status) {
  if (WIFSIGNALED(status)) {
    return killed_by(WTERMSIG(status));
  }
  const int code = WEXITSTATUS(status);
  const bool shell = code > kShellSignalBase && code < kShellSignalBase + NSIG;
  return "exited with status " + std::to_string(code) +
         (shell ? ", as a shell does whose program " + killed_by(code - kShellSignalBase) : "");
}

}  // namespace penstock
