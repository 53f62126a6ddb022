// A stream of all of an owner's jobs, with real sessions and the real store.
#include "worker/queue/jobs/owner_events.h"

#include <gtest/gtest.h>

#include "promise_fixture.h"

namespace penstock::queue {
namespace {

class OwnerEventsTest : public PromiseTest {
 protected:
  // What the stream `id` has said since the last time.
  std::string heard(Peer& peer, uint64_t id) {
    settle();
    std::string text;
    while (auto frame = peer.next()) {
      if (frame->id == id && frame->type == wire::FrameType::kChunk) {
        text += frame->payload;
      } else if (frame->id == id && frame->type == wire::FrameType::kDone) {
        text += "(done)";
      } else if (frame->id == id && frame->type == wire::FrameType::kFailed) {
        text += std::to_string(frame->as<wire::Failed>().status);
      }
    }
    return text;
  }
  std::string listen(Peer& peer, uint64_t id) {
    peer.send(id, get("/events"));
    return heard(peer, id);
  }
  std::string after(Peer& peer, uint64_t id, int64_t ns) {
    advance(ns);
    return heard(peer, id);
  }
  static bool says(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }
  static size_t count(const std::string& text, const std::string& part) {
    size_t found = 0;
    for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) {
      ++found;
    }
    return found;
  }
};

TEST_F(OwnerEventsTest, NoticesAPauseAndThatPenstockdStops) {
  Peer peer = caller();
  Peer device = worker(0);
  promised(peer, 1);
  listen(peer, 2);
  Scheduler::Queue& queue = *dispatcher_.scheduler().find_queue("default");
  dispatcher_.pause(queue);
  EXPECT_TRUE(says(after(peer, 2, kNsPerSec),
                   "event: notice\ndata: {\"draining\":false,\"paused\":true}\n\n"));
  EXPECT_FALSE(says(after(peer, 2, kNsPerSec), "notice")) << "once";
  dispatcher_.resume(queue);
  dispatcher_.drain();
  EXPECT_TRUE(says(after(peer, 2, kNsPerSec), "{\"draining\":true,\"paused\":false}"));
}

TEST_F(OwnerEventsTest, BeginsWithASnapshotAndTellsWhatChanges) {
  Peer peer = caller();
  Peer device = worker(0);
  const std::string first = promised(peer, 1);
  std::string text = listen(peer, 2);
  EXPECT_TRUE(text.starts_with("retry: ")) << text;
  EXPECT_TRUE(says(text, "event: snapshot\ndata: {\"server_time\":1700000000.")) << text;
  EXPECT_TRUE(says(text, ",\"jobs\":[{\"id\":\"" + first + "\"")) << text;
  EXPECT_TRUE(says(text, "\"more\":false}\n\n")) << text;
  EXPECT_EQ(after(peer, 2, kNsPerSec), "");  // nothing has changed

  const std::string second = promised(peer, 3);
  text = after(peer, 2, OwnerEvents::kSoonNs);
  EXPECT_EQ(count(text, "event: job\n"), 1U) << text;
  EXPECT_TRUE(says(text, second)) << text;
  EXPECT_TRUE(says(text, "\"position\":2")) << text;

  device.send(0, wire::Take{1});
  settle();
  text = after(peer, 2, kNsPerSec);
  EXPECT_TRUE(says(text, "\"status\":\"processing\"")) << text;  // and who was behind moves up
  EXPECT_EQ(count(text, "\"position\":1,"), 1U) << text;

  answer(device, take(device), "hello");
  text = after(peer, 2, kNsPerSec);
  EXPECT_TRUE(says(text, "{\"id\":\"" + first + "\",\"object\":\"job\",\"status\":\"completed\""))
      << text;
  EXPECT_TRUE(says(text, "\"result_url\":\"/jobs/" + first + "/result\"")) << text;
}

TEST_F(OwnerEventsTest, WhoMovesBackIsToldFromWhereAndWhy) {
  Peer peer = caller();
  Peer device = worker(0);
  promised(peer, 1);
  promised(peer, 2);
  listen(peer, 3);
  wire::Submit others = async();
  others.owner = "bob";
  promised(peer, 4, others);
  std::string text = after(peer, 3, kNsPerSec);
  EXPECT_TRUE(says(text, R"("moved":{"from":2,"by":"share"})")) << text;
  EXPECT_EQ(count(text, "\"moved\""), 1U) << "the first stands where it stood: " << text;
  others.priority = 10;
  promised(peer, 5, others);
  text = after(peer, 3, kNsPerSec);
  EXPECT_TRUE(says(text, R"("moved":{"from":1,"by":"class"})")) << text;
  EXPECT_TRUE(says(text, R"("moved":{"from":3,"by":"class"})")) << text;
  device.send(0, wire::Take{1});
  settle();
  EXPECT_FALSE(says(after(peer, 3, kNsPerSec), "moved")) << "they move up again";
}

TEST_F(OwnerEventsTest, WhyNobodyKnowsTheWaitIsTold) {
  Peer peer = caller();
  const std::string id = promised(peer, 1);
  EXPECT_TRUE(says(get_job(peer, 2, id).body,
                   R"("eta_seconds":null,"eta_range":null,"eta_reason":"no_worker")"));
  Scheduler::Queue& queue = *dispatcher_.scheduler().find_queue("default");
  dispatcher_.pause(queue);
  EXPECT_TRUE(says(get_job(peer, 3, id).body, R"("eta_reason":"paused")"));
  dispatcher_.resume(queue);
  queue.any_model().starting = true;
  for (const auto& lane : queue.lanes) {
    lane->starting = true;
  }
  EXPECT_TRUE(says(get_job(peer, 4, id).body, R"("eta_reason":"loading")"));
}

TEST_F(OwnerEventsTest, AJobThatEndsBeforeTheNextLookIsToldOf) {
  Peer peer = caller();
  Peer device = worker(1);
  listen(peer, 1);
  const std::string id = promised(peer, 2);
  answer(device, take(device), "hello");
  const std::string text = after(peer, 1, kNsPerSec);
  EXPECT_TRUE(says(text, id)) << text;
  EXPECT_TRUE(says(text, "\"status\":\"completed\"")) << text;
  EXPECT_EQ(after(peer, 1, kNsPerSec), "");
}

TEST_F(OwnerEventsTest, OthersAndNobodySeeNothing) {
  Peer peer = caller();
  worker(0);
  const std::string id = promised(peer, 1);
  wire::Ask other = get("/events");
  other.owner = "Bearer sk-other";
  peer.send(2, other);
  EXPECT_TRUE(says(heard(peer, 2), "\"jobs\":[],"));
  other.owner = {};
  peer.send(3, other);
  EXPECT_TRUE(says(heard(peer, 3), "\"jobs\":[],"));
  promised(peer, 4);
  EXPECT_EQ(after(peer, 2, kNsPerSec), "");
  EXPECT_EQ(after(peer, 3, kNsPerSec), "");
}

TEST_F(OwnerEventsTest, AnOwnerMayHaveSoManyStreams) {
  Peer peer = caller();
  for (uint64_t id = 1; id <= OwnerEvents::kMostStreams; ++id) {
    EXPECT_TRUE(says(listen(peer, id), "snapshot"));
  }
  EXPECT_EQ(listen(peer, 20), "429");
  peer.send_empty(wire::FrameType::kCancel, 1);
  settle();
  EXPECT_TRUE(says(listen(peer, 21), "snapshot"));
}

TEST_F(OwnerEventsTest, SaysThatItIsAliveAndEndsAtLast) {
  Peer peer = caller();
  listen(peer, 1);
  EXPECT_EQ(after(peer, 1, Subscribers::kKeepAliveNs), ": still here\n\n");
  const std::string text = after(peer, 1, OwnerEvents::kLongestNs + OwnerEvents::kSpreadNs);
  EXPECT_TRUE(text.ends_with("(done)")) << text;
}

TEST_F(OwnerEventsTest, ALabelIsShownWhileTheJobLivesAndAfter) {
  Peer peer = caller();
  Peer device = worker(0);
  wire::Submit message = async();
  message.label = "Sieben%20%E2%80%9Cx%22";
  const std::string id = promised(peer, 1, message);
  EXPECT_TRUE(says(get_job(peer, 2, id).body, "\"label\":\"Sieben “x\\\"\""))
      << get_job(peer, 3, id).body;
  device.send(0, wire::Take{1});
  settle();
  answer(device, take(device), "hello");
  const std::string ended = get_job(peer, 4, id).body;
  EXPECT_TRUE(says(ended, "\"status\":\"completed\"")) << ended;
  EXPECT_TRUE(says(ended, "\"label\":\"Sieben")) << ended;
  for (const char* bad : {"%zz", "%ff", "%"}) {
    message.label = bad;
    submit(peer, 5, message);
    EXPECT_EQ(reply(peer, 5).status, 400U) << bad;
  }
  const std::string long_label(513, 'x');
  message.label = long_label;
  submit(peer, 6, message);
  EXPECT_EQ(reply(peer, 6).status, 400U);
}

}  // namespace
}  // namespace penstock::queue
