// What edges are told of charges that any of them could settle (link/edge_lines.h).
#include "worker/queue/link/edge_lines.h"

#include "session_fixture.h"

namespace penstock::queue {
namespace {

using wire::Over;

constexpr uint64_t kSettled = 7;  // no Over has it

class EdgeLinesTest : public SessionTest {
 protected:
  Peer edge(uint64_t nginx, uint64_t settles = 1) {
    Peer peer = connect();
    peer.send(0, wire::Hello{.version = 1, .role = 4, .settles = settles, .nginx = nginx});
    turn();
    return peer;
  }
  void leave(Peer& peer) {
    peer.close();
    turn();
  }
  void over(uint64_t number) {
    edges().over(number, {.receipt = "charged", .sealed = Over::kAnywhere});
    turn();
  }
  // What it was told of sealed charges; kSettled: nothing.
  static uint64_t told(Peer& peer) {
    const auto frame = peer.next();
    return frame ? frame->as<Over>().sealed : kSettled;
  }
  EdgeLines& edges() { return dispatcher_.edges(); }
};

TEST_F(EdgeLinesTest, WhatAnyEdgeCouldSettleIsSaidOnceAndAgainOnlyToTheNginxThatHeard) {
  Peer first = edge(11);
  over(1);
  EXPECT_EQ(told(first), Over::kAnywhere);
  leave(first);
  Peer again = edge(11);
  EXPECT_EQ(told(again), Over::kAsOthers) << "it has a mark, should it have settled it";
  Peer other = edge(12);
  leave(again);
  EXPECT_EQ(told(other), Over::kElsewhere) << "that may have settled what this one charged";
  Peer third = edge(11);
  leave(other);
  EXPECT_EQ(told(third), Over::kAsOthers);
  third.send(1, wire::Settled{});
  turn();
  leave(third);
  Peer last = edge(11);
  EXPECT_EQ(told(last), kSettled);
}

TEST_F(EdgeLinesTest, WhatNobodyHasHeardIsSaidToTheFirstThatComes) {
  over(1);
  Peer first = edge(11);
  EXPECT_EQ(told(first), Over::kAnywhere);
}

TEST_F(EdgeLinesTest, OfOtherHostsJobsNothingIsSaidAgain) {
  Peer first = edge(11);
  EXPECT_TRUE(edges().settles_others());
  over(Over::kOfOthers + 1);
  EXPECT_EQ(told(first), Over::kAnywhere);
  EXPECT_FALSE(edges().settles_others()) << "until it is done with it";
  leave(first);
  Peer next = edge(11);
  EXPECT_EQ(told(next), kSettled);
  EXPECT_TRUE(edges().settles_others());
  over(Over::kOfOthers + 2);
  EXPECT_EQ(told(next), Over::kAnywhere);
  next.send(Over::kOfOthers + 2, wire::Settled{});
  turn();
  EXPECT_TRUE(edges().settles_others());
}

TEST_F(EdgeLinesTest, WithoutAnEdgeThatCouldNothingOfOthersIsAskedFor) {
  EXPECT_FALSE(edges().settles_others());
  Peer older = edge(0, 0);
  EXPECT_FALSE(edges().settles_others());
  Peer newer = edge(11);
  EXPECT_FALSE(edges().settles_others()) << "the first is the one that is told";
  leave(older);
  EXPECT_TRUE(edges().settles_others());
}

}  // namespace
}  // namespace penstock::queue
