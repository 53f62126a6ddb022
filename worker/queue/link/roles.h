// Roles: what a process that connects to the socket may be, by what the kernel says of it.
//
// HELLO only says what a peer wants to be. The kernel noted who it is when it connected: its user,
// its group, and its other groups (SO_PEERCRED and SO_PEERGROUPS, unix(7), socket(7)). `access:` in
// penstock.yaml gives roles to users and groups:
//
//   operators  may do everything
//   edges      are Nginx: they bring requests in any owner's name, and keep the edge's lines
//   viewers    may look at the status and at jobs, without what these ask and answer
//   workers    may be a worker that the configuration calls external: they see requests, and answer
//
// Where a role is left out: operators and workers are penstockd's own user, edges are the members
// of the socket's group, and nobody is a viewer. Root is always an operator and a worker. A worker
// of another user may need the socket's group to come in at all, and is no edge for that: it is one
// if `edges` has its user, or the group that it acts as.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/result.h"

namespace penstock::queue {

// Names of users and groups, or their numbers. A name that is both stands for both.
struct AccessConfig {
  std::vector<std::string> operators;  // empty: penstockd's own user
  std::vector<std::string> edges;      // empty: the socket's group
  std::vector<std::string> viewers;
  std::vector<std::string> workers;  // empty: penstockd's own user
  bool operator==(const AccessConfig&) const = default;
};

enum Role : uint8_t { kViewer = 1, kEdge = 2, kOperator = 4, kWorker = 8 };

// A process at the other end of a connection, as it was when it connected.
struct Credentials {
  pid_t pid = 0;
  uid_t uid = 0;
  uint8_t roles = 0;  // of Role; none: a stranger

  bool is(Role role) const { return (roles & role) != 0; }
  std::string text() const;  // "uid 33, pid 4711"
};

// The users and groups that a list of names stands for.
struct Principals {
  std::vector<uid_t> users;
  std::vector<gid_t> groups;

  // The error says which name is unknown.
  static Result<Principals> find(const std::vector<std::string>& names);
};

class Roles {
 public:
  // `socket_group` as in penstock.yaml; empty: penstockd's own.
  static Result<Roles> create(const AccessConfig& access, const std::string& socket_group);

  // The peer at the other end of `fd`. A peer of whom the kernel tells nothing is a stranger.
  Credentials peer_of(int fd) const;
  // `groups`: the one it acts as comes last.
  uint8_t of(uid_t user, const std::vector<gid_t>& groups) const;

 private:
  Principals operators_;
  Principals edges_;
  Principals viewers_;
  Principals workers_;
};

}  // namespace penstock::queue
