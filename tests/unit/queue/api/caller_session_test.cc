#include "worker/queue/api/caller_session.h"

#include "tests/unit/queue/jobs/session_fixture.h"

namespace penstock::queue {
namespace {

using wire::FrameType;

class CallerSessionTest : public SessionTest {
 protected:
  // Sends bytes that break a rule; expects GOODBYE with this reason, the end of that connection,
  // and nothing else touched.
  void expect_refused(const std::string& bytes, const std::string& reason, bool hello = true) {
    Peer other = caller();
    turn();
    Peer peer = hello ? caller() : connect();
    peer.send_bytes(bytes);
    const uint64_t errors = connections_.protocol_errors();
    turn();
    auto goodbye = peer.next();
    if (goodbye && goodbye->type == FrameType::kAccepted) {
      goodbye = peer.next();
    }
    ASSERT_TRUE(goodbye) << reason;
    EXPECT_EQ(goodbye->as<wire::Goodbye>().message, reason);
    EXPECT_TRUE(peer.hung_up());
    EXPECT_EQ(refused_, reason);
    EXPECT_EQ(connections_.protocol_errors(), errors + 1);
    EXPECT_FALSE(other.hung_up());
  }
  template <typename M>
  static std::string frame(uint64_t id, const M& message) {
    std::string bytes;
    wire::append(bytes, id, message);
    return bytes;
  }
};

TEST_F(CallerSessionTest, AFirstFrameOtherThanHelloEndsTheConnection) {
  expect_refused(frame(1, post()), "the first frame is not HELLO", false);
}

TEST_F(CallerSessionTest, AnotherVersionEndsTheConnection) {
  expect_refused(frame(0, wire::Hello{.version = 4, .role = 1}),
                 "another version of the protocol; these are versions 1 to 3", false);
}

TEST_F(CallerSessionTest, WhoNeedsVersion2SaysSoAndIsAnswered) {
  Peer peer = connect();
  peer.send_bytes(frame(0, wire::Hello{.version = 2, .role = 1}) +
                  frame(7, wire::Verify{.provider = "turnstile", .token = "a"}));
  turn();
  const auto answer = peer.next();
  ASSERT_TRUE(answer);
  ASSERT_EQ(answer->type, FrameType::kVerified);
  EXPECT_EQ(answer->id, 7u);
  EXPECT_EQ(answer->as<wire::Verified>().verdict, static_cast<uint64_t>(wire::Verdict::kUnknown));
}

TEST_F(CallerSessionTest, ARoleThatMayNotConnectEndsTheConnection) {
  expect_refused(frame(0, wire::Hello{.version = 1, .role = 5}),
                 "HELLO names no role that may connect here", false);
}

TEST_F(CallerSessionTest, AWorkerWhoMayIsHandedOverWithAllThatItHasSaid) {
  const std::string said = frame(0, wire::Hello{.version = 1, .role = 2, .name = "a"}) +
                           frame(0, wire::Take{7}) + std::string("\x01\x02", 2);
  Peer denied = connect();
  denied.send_bytes(said);
  turn();
  EXPECT_NE(denied_.find("may be no worker; `access.workers`"), std::string::npos) << denied_;
  EXPECT_EQ(hello_, "");
  credentials_.roles |= kWorker;
  Peer worker = connect();
  worker.send_bytes(said);
  turn();
  EXPECT_EQ(hello_, said);
  EXPECT_TRUE(callers_.empty());
}

TEST_F(CallerSessionTest, AnotherRoleThanBeforeEndsTheConnection) {
  expect_refused(frame(0, wire::Hello{.version = 1, .role = 4}),
                 "HELLO was repeated with another role");
}

TEST_F(CallerSessionTest, ACallerThatMayTurnsToolBetweenRequestsAndBack) {
  Peer ready = worker(1);
  Peer peer = caller();
  for (int i = 0; i < 2; ++i) {
    peer.send(0, wire::Hello{.version = 1, .role = 3});
    peer.send_empty(FrameType::kStatus, 1);
    turn();
    EXPECT_EQ(peer.next()->type, FrameType::kStatus);
    peer.send(0, wire::Hello{.version = 1, .role = 1});
  }
  peer.send(2, post());
  turn();
  EXPECT_EQ(peer.next()->type, FrameType::kAccepted);
  peer.send(0, wire::Hello{.version = 1, .role = 3});
  turn();
  EXPECT_EQ(peer.next()->as<wire::Goodbye>().message, "HELLO was repeated with another role")
      << "a request is on its way";
}

TEST_F(CallerSessionTest, AnEdgeThatIsNoOperatorTurnsNoTool) {
  credentials_ = {.pid = 1, .uid = 33, .roles = kEdge};
  Peer edge = caller();
  edge.send(0, wire::Hello{.version = 1, .role = 3});
  edge.send(1, wire::Ask{.method = "POST", .path = "/queues/default/pause"});
  turn();
  EXPECT_NE(edge.next()->as<wire::Goodbye>().message.find("access.operators"), std::string::npos);
  EXPECT_TRUE(edge.hung_up());
}

TEST_F(CallerSessionTest, AnUnknownFrameTypeEndsTheConnection) {
  std::string bytes = frame(1, wire::Take{1});
  bytes[4] = 99;
  expect_refused(bytes, "unknown frame type");
}

TEST_F(CallerSessionTest, ReservedBytesThatAreNotZeroEndTheConnection) {
  std::string bytes = frame(1, wire::Take{1});
  bytes[6] = 1;
  expect_refused(bytes, "reserved bytes are not zero");
}

TEST_F(CallerSessionTest, AFrameOfTheOtherDirectionEndsTheConnection) {
  expect_refused(frame(1, wire::Head{200}), "a frame that callers do not send");
}

TEST_F(CallerSessionTest, APayloadOverItsLimitEndsTheConnection) {
  char header[wire::kHeaderBytes];
  wire::encode_header(header, FrameType::kStatus, 1, connections_.limits().other_bytes + 1);
  expect_refused(std::string(header, sizeof header), "payload over its limit");
}

TEST_F(CallerSessionTest, ABodyOverTheLimitIsTooLargeAndTheConnectionLivesOn) {
  Peer ready = worker(1);
  connections_.limits().submit_bytes = 300'000;
  Peer peer = caller();
  wire::Submit large = post();
  const std::string body(1'000'000, 'x');
  large.body = body;
  const std::string bytes = frame(7, large) + frame(8, post());
  for (size_t at = 0; at < bytes.size(); at += 100'000) {  // as it trickles in
    peer.send_bytes(std::string_view(bytes).substr(at, 100'000));
    turn();
  }
  const auto refused = peer.next();
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->id, 7U);
  EXPECT_EQ(refused->as<wire::Failed>().status, 413U);
  EXPECT_EQ(dispatcher_.jobs(), 1U) << "the next job on the connection was taken";
  EXPECT_EQ(connections_.protocol_errors(), 0U);
}

TEST_F(CallerSessionTest, ABadFieldListEndsTheConnection) {
  std::string bytes;
  wire::FrameWriter writer(bytes, FrameType::kSubmit, 1);
  writer.field(6, "a").field(6, "b").finish();
  expect_refused(bytes, "a field comes twice");
}

TEST_F(CallerSessionTest, AnIdInUseEndsTheConnectionAndItsJobs) {
  Peer ready = worker(1);
  expect_refused(frame(5, post()) + frame(5, post()), "a request with an id that is in use");
  EXPECT_EQ(dispatcher_.jobs(), 0U);
}

TEST_F(CallerSessionTest, ASubmitWithoutIdEndsTheConnection) {
  expect_refused(frame(0, post()), "a request has no id");
}

TEST_F(CallerSessionTest, StatusIsForTools) {
  std::string bytes;
  wire::append_empty(bytes, FrameType::kStatus, 1);
  expect_refused(bytes, "STATUS is for tools");
  Peer tool = connect();
  tool.send(0, wire::Hello{.version = 1, .role = 3});
  tool.send_bytes(bytes);
  turn();
  EXPECT_EQ(tool.next()->as<wire::StatusReport>().json, "{\"status\":\"serving\"}");
}

TEST_F(CallerSessionTest, ARepeatedHelloIsHarmless) {
  Peer ready = worker(1);
  Peer peer = caller();
  peer.send_bytes(frame(0, wire::Hello{.version = 1, .role = 1}) + frame(1, post()));
  turn();
  EXPECT_EQ(peer.next()->type, FrameType::kAccepted);
}

TEST_F(CallerSessionTest, ACancelForAnUnknownIdIsIgnored) {
  Peer peer = caller();
  peer.send_empty(FrameType::kCancel, 77);
  turn();
  EXPECT_FALSE(peer.hung_up());
}

TEST_F(CallerSessionTest, AFrameMayArriveByteByByte) {
  Peer ready = worker(1);
  Peer peer = caller();
  for (const char byte : frame(9, post("{\"prompt\":\"hi\"}"))) {
    peer.send_bytes({&byte, 1});
    loop_.run_once(0, 0);
  }
  turn();
  EXPECT_EQ(ready.next()->as<wire::Submit>().body, "{\"prompt\":\"hi\"}");
}

TEST_F(CallerSessionTest, AWholeFrameAndHalfOfTheNextMayArriveTogether) {
  Peer ready = worker(2);
  Peer peer = caller();
  turn();
  const std::string second = frame(2, post("second"));
  peer.send_bytes(frame(1, post("first")) + second.substr(0, second.size() / 2));
  turn();
  EXPECT_EQ(ready.next()->as<wire::Submit>().body, "first");
  peer.send_bytes(second.substr(second.size() / 2));
  turn();
  EXPECT_EQ(ready.next()->as<wire::Submit>().body, "second");
}

TEST_F(CallerSessionTest, AFrameLargerThanAnyBufferArrivesWhole) {
  Peer ready = worker(1);
  Peer peer = caller();
  const std::string body(3U << 20, 'x');
  const std::string bytes = frame(9, post(body)) + frame(10, post("next"));
  for (size_t at = 0; at < bytes.size(); at += 100'000) {
    peer.send_bytes(std::string_view(bytes).substr(at, 100'000));
    turn();
    ASSERT_FALSE(peer.hung_up());
  }
  std::optional<Peer::Received> received;
  for (int i = 0; i < 100 && !received; ++i) {
    turn();
    received = ready.next();
  }
  ASSERT_TRUE(received);
  EXPECT_EQ(received->as<wire::Submit>().body, body);
  EXPECT_EQ(dispatcher_.jobs(), 2U);
}

TEST_F(CallerSessionTest, WhoIsNeitherOperatorNorEdgeIsToldSoAndLeaves) {
  credentials_ = {.pid = 4711, .uid = 33, .roles = 0};
  for (const uint64_t role : {1, 3, 4}) {
    denied_.clear();
    Peer peer = connect();
    peer.send(0, wire::Hello{.version = 1, .role = role});
    turn();
    const auto goodbye = peer.next();
    ASSERT_TRUE(goodbye) << role;
    EXPECT_EQ(goodbye->as<wire::Goodbye>().message, denied_);
    EXPECT_EQ(goodbye->as<wire::Goodbye>().denied, 1U);
    EXPECT_NE(denied_.find("uid 33, pid 4711 is no "), std::string::npos) << denied_;
    EXPECT_TRUE(peer.hung_up());
  }
  EXPECT_EQ(greeted_, 0);
  EXPECT_EQ(dispatcher_.edges().size(), 0U) << "nobody poses as the edge";
}

TEST_F(CallerSessionTest, AnEdgeBringsRequestsAndIsNoOperator) {
  credentials_ = {.pid = 1, .uid = 33, .roles = kEdge};
  Peer ready = worker(1);
  Peer edge = caller();
  edge.send(1, post());
  turn();
  EXPECT_EQ(edge.next()->type, FrameType::kAccepted);
  Peer tool = connect();
  tool.send(0, wire::Hello{.version = 1, .role = 3});
  turn();
  EXPECT_EQ(tool.next()->type, FrameType::kGoodbye);
  EXPECT_NE(denied_.find("access.operators"), std::string::npos) << denied_;
}

TEST_F(CallerSessionTest, AViewerSeesTheStatusAndNothingElse) {
  credentials_ = {.pid = 1, .uid = 500, .roles = kViewer};
  Peer tool = connect();
  tool.send(0, wire::Hello{.version = 1, .role = 3});
  tool.send_empty(FrameType::kStatus, 1);
  tool.send(2, wire::Ask{.method = "GET", .path = "/jobs"});
  turn();
  EXPECT_EQ(tool.next()->type, FrameType::kStatus);
  EXPECT_EQ(tool.next()->as<wire::Failed>().status, 403U);
  tool.send(3, post());
  turn();
  EXPECT_EQ(tool.next()->type, FrameType::kGoodbye) << "it brings no requests";
}

TEST_F(CallerSessionTest, WhoMayNoLongerBeWhatItIsLeaves) {
  Peer edge = caller();
  turn();
  ASSERT_FALSE(edge.hung_up());
  callers_.front().set_roles(kEdge);
  turn();
  EXPECT_FALSE(edge.hung_up());
  callers_.front().set_roles(kViewer);
  turn();
  EXPECT_TRUE(edge.hung_up());
}

// A frame's beginning: its header and some of the fields.
std::string half_of(const std::string& frame) { return frame.substr(0, frame.size() / 2); }

TEST_F(CallerSessionTest, RequestsThatComeAtOnceTakeNoMoreMemoryThanAllMayHold) {
  config_.limits.max_held_bytes = 3 << 20;
  apply();
  Peer ready = worker(4);
  const std::string large = frame(1, post(std::string(1 << 20, 'x')));
  const auto send = [&](Peer& peer, std::string_view bytes) {  // as fast as it is read
    for (size_t at = 0; at < bytes.size(); at += 100'000) {
      peer.send_bytes(bytes.substr(at, 100'000));
      turn();
    }
  };
  std::vector<Peer> peers;
  for (int i = 0; i < 4; ++i) {
    peers.push_back(caller());
    send(peers.back(), half_of(large));
  }
  EXPECT_LE(connections_.unfinished_bytes(), 3U << 20);
  EXPECT_FALSE(peers[0].next()) << "two are on their way";
  EXPECT_FALSE(peers[1].next());
  for (int i : {2, 3}) {
    const auto refused = peers[i].next();
    ASSERT_TRUE(refused) << i;
    EXPECT_EQ(refused->as<wire::Failed>().status, 503U);
    EXPECT_GT(refused->as<wire::Failed>().retry_after_s, 0U);
  }
  send(peers[0], std::string_view(large).substr(large.size() / 2));
  EXPECT_EQ(peers[0].next()->type, FrameType::kAccepted);
  peers[1].close();
  send(peers[2], std::string_view(large).substr(large.size() / 2));  // is passed over
  EXPECT_EQ(connections_.unfinished_bytes(), 0U);
  send(peers[2], frame(2, post()));
  EXPECT_EQ(peers[2].next()->type, FrameType::kAccepted) << "the connection lives on";
}

TEST_F(CallerSessionTest, NoMemoryIsTakenBeforeHello) {
  Peer peer = connect();
  peer.send_bytes(half_of(frame(1, post(std::string(100'000, 'x')))));
  turn();
  ASSERT_TRUE(peer.next());
  EXPECT_EQ(refused_, "the first frame is not HELLO");
  EXPECT_EQ(connections_.unfinished_bytes(), 0U);
}

}  // namespace
}  // namespace penstock::queue
