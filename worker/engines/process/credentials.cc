#include "worker/engines/process/credentials.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <cstring>

namespace penstock::process {

Result<Account> find_account(const std::string& user) {
  char text[16384];
  passwd entry;
  passwd* found = nullptr;
  const int error = user.empty() ? ::getpwuid_r(::geteuid(), &entry, text, sizeof text, &found)
                                 : ::getpwnam_r(user.c_str(), &entry, text, sizeof text, &found);
  if (found == nullptr && user.empty()) {  // a container may have users without names
    return Account{{::geteuid(), ::getegid(), {}}, "/"};
  }
  if (found == nullptr) {
    return Error{"there is no user \"" + user + "\"" +
                 (error == 0 ? "" : std::string(": ") + std::strerror(error))};
  }
  Account account{{entry.pw_uid, entry.pw_gid, {}}, entry.pw_dir};
  int count = 0;
  ::getgrouplist(entry.pw_name, entry.pw_gid, nullptr, &count);
  account.credentials.groups.resize(static_cast<size_t>(count));
  ::getgrouplist(entry.pw_name, entry.pw_gid, account.credentials.groups.data(), &count);
  return account;
}

}  // namespace penstock::process
