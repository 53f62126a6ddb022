// What runs in the guard's process (guard.h).
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace penstock::process {

// Everything is made before the fork; nothing is owned.
struct GuardPlan {
  int control;                // one end of a SOCK_SEQPACKET pair: orders in, notices out
  int input, output, errors;  // the program's ends of its pipes
  const char* path;
  char* const* command;
  char* const* environment;
  const char* folder;
  bool change_user;
  uid_t user;
  gid_t group;
  const gid_t* groups;
  size_t group_count;
};

enum GuardOrder : char { kTerminate = 'T', kKill = 'K' };

// REQUIRES: called in the child of a fork.
[[noreturn]] void run_guard(const GuardPlan& plan);

}  // namespace penstock::process
