#include "worker/queue/link/roles.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/base/fd.h"

namespace penstock::queue {
namespace {

constexpr uid_t kSomebody = 4'000'000;

Roles roles(const AccessConfig& access, const std::string& socket_group = {}) {
  auto made = Roles::create(access, socket_group);
  EXPECT_TRUE(made) << made.error().message;
  return *std::move(made);
}

TEST(RolesTest, LeftOutOperatorsAreRootAndOurselvesAndEdgesTheSocketsGroup) {
  const Roles by_default = roles({}, "daemon");
  EXPECT_TRUE(by_default.of(0, {}) & kOperator);
  EXPECT_TRUE(by_default.of(::geteuid(), {}) & kOperator);
  EXPECT_EQ(by_default.of(kSomebody, {1}), kEdge) << "daemon's group is 1";
  EXPECT_EQ(by_default.of(kSomebody, {2, 1}), kEdge) << "also by another of its groups";
  EXPECT_EQ(by_default.of(kSomebody, {kSomebody}), 0);
}

TEST(RolesTest, WithoutASocketGroupEdgesAreOfOurOwnGroup) {
  EXPECT_EQ(roles({}).of(kSomebody, {::getegid()}), kEdge);
}

TEST(RolesTest, NamesAreUsersAndGroupsAndNumbersAreBoth) {
  const Roles named = roles({.operators = {"daemon"}, .edges = {"4000001"}, .viewers = {"bin"}});
  EXPECT_TRUE(named.of(1, {}) & kOperator) << "the user daemon";
  EXPECT_TRUE(named.of(kSomebody, {1}) & kOperator) << "the group daemon";
  EXPECT_EQ(named.of(4'000'001, {}), kEdge);
  EXPECT_EQ(named.of(kSomebody, {4'000'001}), kEdge);
  EXPECT_EQ(named.of(2, {}), kViewer);
  EXPECT_TRUE(named.of(0, {}) & kOperator) << "root always is";
}

TEST(RolesTest, WhoIsNamedTakesThePlaceOfWhoWouldBeByDefault) {
  const Roles named = roles({.edges = {"bin"}}, "daemon");
  EXPECT_EQ(named.of(kSomebody, {1}), 0);
  EXPECT_EQ(named.of(2, {}), kEdge);
}

TEST(RolesTest, AWorkerThatComesByTheSocketsGroupIsNoEdge) {
  const Roles named = roles({.workers = {"daemon"}}, "bin");
  EXPECT_EQ(named.of(1, {2, 1}), kWorker);
  EXPECT_EQ(named.of(1, {1, 2}), kWorker | kEdge) << "it acts as that group";
  EXPECT_EQ(named.of(kSomebody, {2, kSomebody}), kEdge) << "it is no worker";
  EXPECT_EQ(roles({.edges = {"daemon"}, .workers = {"daemon"}}).of(1, {2, 3}), kWorker | kEdge)
      << "it is named";
}

TEST(RolesTest, AnUnknownNameIsAnErrorThatNamesIt) {
  const auto made = Roles::create({.edges = {"no-such-user"}}, "");
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().message, "there is no user and no group 'no-such-user'");
}

TEST(RolesTest, TheKernelSaysWhoConnected) {
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  const Fd ours(fds[0]);
  const Fd theirs(fds[1]);
  const Credentials peer = roles({}).peer_of(ours.get());
  EXPECT_EQ(peer.pid, ::getpid());
  EXPECT_EQ(peer.uid, ::geteuid());
  EXPECT_TRUE(peer.is(kOperator));
  EXPECT_EQ(roles({}).peer_of(-1).roles, 0) << "who is not known is a stranger";
}

}  // namespace
}  // namespace penstock::queue
