// Credentials: the user that a program runs as, if it is not the worker's own.
//
// penstockd checks whether that is possible: it needs root, or CAP_SETUID, CAP_SETGID and CAP_KILL.
// Here it is tried. If it fails, the program is not started.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "shared/base/result.h"

namespace penstock::process {

struct Credentials {
  uid_t user;
  gid_t group;
  std::vector<gid_t> groups;
};

struct Account {
  Credentials credentials;
  std::string home;
};

// The account of that name; that of the worker's own user if the name is empty.
Result<Account> find_account(const std::string& user);

}  // namespace penstock::process
