#include "worker/queue/link/roles.h"

#include <grp.h>
#include <pwd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace penstock::queue {
namespace {

bool stands_in(const Principals& these, uid_t user, const std::vector<gid_t>& groups) {
  const auto among = [](const auto& list, auto value) {
    return std::find(list.begin(), list.end(), value) != list.end();
  };
  return among(these.users, user) || std::any_of(groups.begin(), groups.end(), [&](gid_t group) {
           return among(these.groups, group);
         });
}

// All groups of the peer; its first is the one it acts as.
std::vector<gid_t> groups_of(int fd, gid_t first) {
  std::vector<gid_t> groups(32);
  auto bytes = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
  while (::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &bytes) != 0) {
    if (errno != ERANGE || bytes <= groups.size() * sizeof(gid_t)) {
      bytes = 0;
      break;
    }
    groups.resize(bytes / sizeof(gid_t));  // the kernel has said how many there are
  }
  groups.resize(bytes / sizeof(gid_t));
  groups.push_back(first);
  return groups;
}

}  // namespace

// By number: a name may be a question to another host.
std::string Credentials::text() const {
  return "uid " + std::to_string(uid) + ", pid " + std::to_string(pid);
}

Result<Principals> Principals::find(const std::vector<std::string>& names) {
  Principals found;
  for (const std::string& name : names) {
    uint32_t number = 0;
    const char* const end = name.data() + name.size();
    if (const auto [rest, error] = std::from_chars(name.data(), end, number);
        error == std::errc() && rest == end) {
      found.users.push_back(number);
      found.groups.push_back(number);
      continue;
    }
    const passwd* const user = ::getpwnam(name.c_str());
    const group* const members = ::getgrnam(name.c_str());
    if (user == nullptr && members == nullptr) {
      return Error{"there is no user and no group '" + name.substr(0, 64) + "'"};
    }
    if (user != nullptr) {
      found.users.push_back(user->pw_uid);
    }
    if (members != nullptr) {
      found.groups.push_back(members->gr_gid);
    }
  }
  return found;
}

Result<Roles> Roles::create(const AccessConfig& access, const std::string& socket_group) {
  Roles roles;
  for (const auto& [names, principals] : {std::pair{&access.operators, &roles.operators_},
                                          {&access.edges, &roles.edges_},
                                          {&access.viewers, &roles.viewers_},
                                          {&access.workers, &roles.workers_}}) {
    auto found = Principals::find(*names);
    if (!found) {
      return found.error();
    }
    *principals = *std::move(found);
  }
  for (const auto& [names, principals] :
       {std::pair{&access.operators, &roles.operators_}, {&access.workers, &roles.workers_}}) {
    principals->users.push_back(0);
    if (names->empty()) {
      principals->users.push_back(::geteuid());
    }
  }
  if (access.edges.empty()) {
    const group* const members = socket_group.empty() ? nullptr : ::getgrnam(socket_group.c_str());
    if (!socket_group.empty() && members == nullptr) {
      return Error{"there is no group '" + socket_group + "'; correct `socket_group`"};
    }
    roles.edges_.groups.push_back(members != nullptr ? members->gr_gid : ::getegid());
  }
  return roles;
}

uint8_t Roles::of(uid_t user, const std::vector<gid_t>& groups) const {
  const uint8_t worker = stands_in(workers_, user, groups) ? kWorker : 0;
  if (stands_in(operators_, user, groups)) {
    return kOperator | kEdge | kViewer | worker;
  }
  const bool a_stranger_works = worker != 0 && user != ::geteuid() && !groups.empty();
  const bool edge = stands_in(edges_, user, a_stranger_works ? std::vector{groups.back()} : groups);
  return static_cast<uint8_t>((edge ? kEdge : 0) |
                              (stands_in(viewers_, user, groups) ? kViewer : 0) | worker);
}

Credentials Roles::peer_of(int fd) const {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return {};
  }
  return {.pid = credentials.pid,
          .uid = credentials.uid,
          .roles = of(credentials.uid, groups_of(fd, credentials.gid))};
}

}  // namespace penstock::queue
