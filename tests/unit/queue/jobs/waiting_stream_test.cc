// A stream that speaks while its job waits; the test plays Nginx and the worker.
#include "promise_fixture.h"

namespace penstock::queue {
namespace {

using Type = wire::FrameType;

class WaitingStreamTest : public PromiseTest {
 protected:
  static constexpr int64_t kEveryNs = 5 * kNsPerSec;

  static wire::Submit stream() {
    wire::Submit message = post("{\"stream\":true}");
    message.news_ms = kEveryNs / kNsPerMs;
    return message;
  }
  // A worker whose only slot another job has; and that job's caller.
  Peer busy_worker(uint64_t checks = 0) {
    Peer peer = connect_worker();
    peer.send(0, wire::Hello{.version = 1,
                             .role = 2,
                             .name = "demo",
                             .model = "demo",
                             .slots = 1,
                             .checks = checks});
    peer.send(0, wire::Take{1});
    turn();
    submit(other_, 9, post());
    running_ = job_of(peer);
    return peer;
  }
  static uint64_t job_of(Peer& device) {
    const auto frame = device.next();
    EXPECT_TRUE(frame && frame->type == Type::kSubmit);
    return frame ? frame->id : 0;
  }
  void end_other(Peer& device) {
    device.send(running_, wire::Head{.status = 200});
    device.send(running_, wire::Done{});
    device.send(0, wire::Take{1});
    turn();
  }
  Peer queued() {
    Peer peer = caller();
    submit(peer, 1, stream());
    EXPECT_EQ(peer.next()->type, Type::kAccepted);
    return peer;
  }
  // All that has come: signs of life left out.
  static std::vector<Peer::Received> heard(Peer& peer) {
    std::vector<Peer::Received> all;
    while (auto frame = peer.next()) {
      if (frame->type != Type::kProgress) {
        all.push_back(*std::move(frame));
      }
    }
    return all;
  }
  void let(int64_t ns) {
    for (int64_t gone = 0; gone < ns; gone += kNsPerSec) {
      advance(kNsPerSec);
    }
    turn();
  }

  Peer other_ = caller();
  uint64_t running_ = 0;
};

TEST_F(WaitingStreamTest, BeginsAfterOneIntervalAndGoesOnAsTheAnswer) {
  Peer device = busy_worker();
  Peer peer = queued();
  let(kEveryNs - kNsPerSec);
  EXPECT_TRUE(heard(peer).empty());
  let(kNsPerSec);
  auto came = heard(peer);
  ASSERT_EQ(came.size(), 2U);
  const auto head = came[0].as<wire::Head>();
  EXPECT_EQ(head.status, 200U);
  EXPECT_EQ(head.opens, 1U);
  EXPECT_EQ(head.content_type, "text/event-stream");
  EXPECT_EQ(came[1].as<wire::Note>().text, ": queued position=1 reason=learning\n\n");
  end_other(device);
  let(kEveryNs);
  came = heard(peer);
  ASSERT_EQ(came.size(), 1U);
  EXPECT_EQ(came[0].as<wire::Note>().text.substr(0, 12), ": processing");
  const uint64_t job = job_of(device);
  device.send(job, wire::Head{.status = 200, .content_type = "text/event-stream"});
  turn();
  came = heard(peer);
  ASSERT_EQ(came.size(), 1U);
  const auto begun = came[0].as<wire::Head>();
  EXPECT_EQ(begun.opens, 0U);
  EXPECT_NEAR(static_cast<double>(begun.queue_us), 5e6, 1e5) << "and when frames were held back";
  EXPECT_GE(begun.run_us, 5'000'000U);
}

TEST_F(WaitingStreamTest, WhatStartsWithinTheIntervalGoesOutAsEver) {
  Peer device = busy_worker();
  Peer peer = queued();
  let(kEveryNs - kNsPerSec);
  end_other(device);
  let(60 * kNsPerSec);  // it has begun, and says nothing yet
  EXPECT_TRUE(heard(peer).empty());
  device.send(job_of(device), wire::Failed{.status = 400, .code = "invalid_request"});
  turn();
  const auto came = heard(peer);
  ASSERT_EQ(came.size(), 1U);
  EXPECT_EQ(came[0].as<wire::Failed>().status, 400U);
}

TEST_F(WaitingStreamTest, IsNeverSilentForLongerThanFifteenSeconds) {
  Peer device = busy_worker();
  Peer peer = queued();
  int64_t last_ns = now_ns_;
  int notes = 0;
  for (int second = 0; second < 120; ++second) {
    advance(kNsPerSec);
    for (const auto& frame : heard(peer)) {
      if (frame.type == Type::kNote) {
        EXPECT_GE(now_ns_ - last_ns, kEveryNs);
        last_ns = now_ns_;
        ++notes;
      }
    }
    EXPECT_LE(now_ns_ - last_ns, 15 * kNsPerSec);
  }
  EXPECT_EQ(notes, 8) << "nothing changes: one at 5 s, then one each 15 s";
}

TEST_F(WaitingStreamTest, TellsAChangeOfPlaceAtTheNextInterval) {
  Peer device = busy_worker();
  Peer first = queued();
  Peer peer = queued();
  let(kEveryNs);
  EXPECT_EQ(heard(peer).back().as<wire::Note>().position, 2U);
  first.close();
  turn();
  let(kEveryNs - kNsPerSec);
  EXPECT_TRUE(heard(peer).empty());
  let(kNsPerSec);
  const auto came = heard(peer);
  ASSERT_EQ(came.size(), 1U);
  EXPECT_EQ(came[0].as<wire::Note>().position, 1U);
}

TEST_F(WaitingStreamTest, HasEventsWhereTheyAreWanted) {
  Peer device = busy_worker();
  Peer peer = caller();
  wire::Submit message = stream();
  message.news_events = 1;
  submit(peer, 1, message);
  let(kEveryNs);
  const auto came = heard(peer);
  const std::string text(came.back().as<wire::Note>().text);
  EXPECT_EQ(text.find(": queued position=1 reason=learning\n\nevent: queue\ndata: {\"id\":\"job_"),
            0U)
      << text;
  EXPECT_TRUE(text.ends_with("}\n\n"));
}

TEST_F(WaitingStreamTest, WhatTheEngineRefusesIsRefusedBeforeItBegins) {
  Peer device = busy_worker(1);
  Peer peer = queued();
  let(kEveryNs);
  EXPECT_TRUE(heard(peer).empty()) << "the worker has not spoken";
  const auto check = device.next();
  ASSERT_TRUE(check && check->type == Type::kCheck);
  device.send(check->id, wire::Checked{400, "invalid_request", "n must be 1.", "n"});
  settle();
  const auto came = heard(peer);
  ASSERT_EQ(came.size(), 1U);
  EXPECT_EQ(came[0].as<wire::Failed>().status, 400U);
  EXPECT_EQ(dispatcher_.jobs(), 1U);
}

TEST_F(WaitingStreamTest, BeginsOnceTheEngineHasNothingAgainstIt) {
  Peer device = busy_worker(1);
  Peer peer = queued();
  let(kEveryNs);
  device.send(device.next()->id, wire::Checked{});
  settle();
  advance(0);
  EXPECT_EQ(heard(peer).size(), 2U);
  let(60 * kNsPerSec);
  EXPECT_FALSE(device.next()) << "it is shown once";
}

TEST_F(WaitingStreamTest, AWorkerThatIsLostWhileItLooksRefusesNothing) {
  Peer device = busy_worker(1);
  Peer peer = queued();
  let(kEveryNs);
  device.close();
  turn();
  advance(0);
  EXPECT_EQ(heard(peer)[0].as<wire::Head>().opens, 1U);
}

// What an engine answers with an error, or not as events, is the stream's last event.
class MisfitTest : public WaitingStreamTest {
 protected:
  wire::Failed answered(const wire::Head& head, std::string_view body) {
    Peer device = busy_worker();
    Peer peer = queued();
    let(kEveryNs);
    heard(peer);
    end_other(device);
    const uint64_t job = job_of(device);
    device.send(job, head);
    std::string frames;
    wire::append_chunk(frames, job, body.substr(0, body.size() / 2));
    wire::append_chunk(frames, job, body.substr(body.size() / 2));
    device.send_bytes(frames);
    device.send(job, wire::Done{});
    turn();
    const auto came = heard(peer);
    EXPECT_EQ(came.size(), 1U);
    frame_ = came.back();
    EXPECT_EQ(dispatcher_.jobs(), 0U);
    return frame_.as<wire::Failed>();
  }
  Peer::Received frame_;
};

TEST_F(MisfitTest, TellsAnErrorInTheEnginesOwnWordsInOneLine) {
  const auto failed = answered({.status = 400, .content_type = "application/json; charset=utf-8"},
                               "{\"error\":\n{\"message\":\"too\\nlong\",\"code\":7}}\n");
  EXPECT_EQ(failed.status, 400U);
  EXPECT_EQ(failed.code, "invalid_request");
  EXPECT_EQ(failed.json, "{\"error\": {\"message\":\"too\\nlong\",\"code\":7}} ");
}

TEST_F(MisfitTest, HasWordsOfOurOwnForWhatIsNoErrorOfOpenAis) {
  for (const std::string_view body :
       {"<html>\n</html>", "{\"error\":\"words\"}", "{\"detail\":{}}", "{\"error\":{}"}) {
    const auto failed = answered({.status = 503, .content_type = "application/json"}, body);
    EXPECT_EQ(failed.json, "") << body;
    EXPECT_EQ(failed.message, "The engine answered 503.");
    EXPECT_EQ(failed.code, "engine_failed");
  }
}

TEST_F(MisfitTest, HoldsNoMoreOfALongErrorThanABoundedPart) {
  const std::string body = "{\"error\":{\"message\":\"" + std::string(40'000, 'x') + "\"}}";
  EXPECT_EQ(answered({.status = 400, .content_type = "application/json"}, body).json, "");
}

TEST_F(MisfitTest, AnAnswerThatIsNoStreamIsNone) {
  const auto failed = answered({.status = 200, .content_type = "application/json"}, "{}");
  EXPECT_EQ(failed.status, 502U);
  EXPECT_EQ(failed.message, "The engine's answer is no stream of events.");
}

}  // namespace
}  // namespace penstock::queue
