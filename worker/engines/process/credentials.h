// Credentials: the user a program runs as, where that is another than the worker's own.
//
// Whether it may be is checked by penstockd (needs root, or CAP_SETUID, CAP_SETGID and CAP_KILL);
// here it is tried, and the program is not started where it fails.
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

// Of that name; of the worker's own user where it is empty.
Result<Account> find_account(const std::string& user);

}  // namespace penstock::process
