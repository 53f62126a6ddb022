// What tools ask and order, with the real store and the real supervisor beneath.
#include "worker/queue/api/operator_api.h"

#include "tests/unit/queue/jobs/promise_fixture.h"

namespace penstock::queue {
namespace {

class OperatorApiTest : public PromiseTest {
 protected:
  OperatorApiTest() {
    config_.workers[0].slots = 4;
    config_.worker_binary = "/nowhere/penstock-worker";
    supervisor_.apply(config_);
    handlers_.operator_api = &operator_api_;
    tool_.send(0, wire::Hello{.version = 1, .role = 3});
  }

  Reply order(const char* method, const std::string& path, const std::string& query = "") {
    return ask(tool_, ++number_, {.method = method, .path = path, .query = query});
  }
  // A job that has failed its only attempt.
  std::string dead(const wire::Submit& message = async()) {
    config_.queues[0].attempts = 1;
    supervisor_.apply(config_);
    Peer device = worker(1);
    Peer peer = caller();
    std::string id = promised(peer, 1, message);
    device.send(
        take(device),
        wire::Failed{
            .status = 500, .code = "engine_failed", .message = "Out of paper.", .retryable = 1});
    settle();
    device.close();
    settle();
    return id;
  }
  static bool holds(const Reply& reply, const std::string& text) {
    return reply.body.find(text) != std::string::npos;
  }

  Supervisor supervisor_{connections_, dispatcher_};
  StandingOrders orders_{nullptr};
  OperatorApi operator_api_{dispatcher_, jobs_api_, supervisor_, orders_};
  Peer tool_ = connect();
  uint64_t number_ = 0;
};

TEST_F(OperatorApiTest, TellsViewersTheStatusAndTheJobsButNotWhatTheyAskAndAnswer) {
  operator_api_.tell("/status", [] { return std::string(R"({"status":"serving"})"); });
  EXPECT_EQ(order("GET", "/status").body, R"({"status":"serving"})");
  EXPECT_EQ(order("POST", "/status").status, 404U);
  const std::string id = dead();
  credentials_ = {.pid = 1, .uid = 500, .roles = kViewer};
  Peer viewer = connect();
  viewer.send(0, wire::Hello{.version = 1, .role = 3});
  EXPECT_EQ(ask(viewer, 1, {.method = "GET", .path = "/status"}).status, 200U);
  for (const char* path : {"/jobs", "/dead"}) {
    EXPECT_EQ(ask(viewer, ++number_, {.method = "GET", .path = path}).status, 200U) << path;
  }
  const std::string job = "/jobs/" + id;
  EXPECT_EQ(ask(viewer, ++number_, {.method = "GET", .path = job}).status, 200U);
  for (const std::string& path :
       {job + "/result", job + "/events", job + "/preview", job + "/", "/dead/" + id,
        std::string("/jobs/events"), std::string("/orders"), std::string("/predictions"),
        std::string("/status/"), std::string("/")}) {
    EXPECT_EQ(ask(viewer, ++number_, {.method = "GET", .path = path}).status, 403U) << path;
  }
  for (const auto& [method, path] : {std::pair{"DELETE", job},
                                     {"POST", std::string("/jobs")},
                                     {"POST", std::string("/status")},
                                     {"DELETE", "/dead/" + id},
                                     {"POST", std::string("/queues/default/pause")}}) {
    EXPECT_EQ(ask(viewer, ++number_, {.method = method, .path = path}).status, 403U) << path;
  }
}

TEST_F(OperatorApiTest, EachOrderIsInTheLogWithWhoGaveItAndWhatCameOfIt) {
  const std::string id = dead();
  testing::internal::CaptureStderr();
  order("GET", "/jobs");
  ask(tool_, ++number_,
      {.owner = "alice\n at 127.0.0.1", .method = "POST", .path = "/queues/default/pause"});
  order("POST", "/workers/none/scale", "n=2");
  order("DELETE", "/dead/" + id);
  order("DELETE", "/jobs/" + id);
  credentials_ = {.pid = 12, .uid = 500, .roles = kViewer};
  Peer viewer = connect();
  viewer.send(0, wire::Hello{.version = 1, .role = 3});
  for (uint64_t number = 1; number <= 20; ++number) {
    ask(viewer, number, {.method = "POST", .path = "/workers/drain"});
  }
  const std::string log = testing::internal::GetCapturedStderr();
  const auto has = [&](const char* words) { return log.find(words) != log.npos; };
  EXPECT_TRUE(has("[info] order uid=")) << log;
  EXPECT_TRUE(has(
      R"( by="alice? at 127.0.0.1" deed=pause object=/queues/default outcome=done status=200)"));
  EXPECT_TRUE(has(R"( deed=scale object="/workers/none?n=2" outcome=refused status=404)")) << log;
  EXPECT_TRUE(has((" deed=drop object=/dead/" + id + " outcome=done status=200").c_str())) << log;
  EXPECT_TRUE(has((" deed=cancel object=/jobs/" + id + " outcome=refused").c_str())) << log;
  EXPECT_TRUE(
      has("[warn] order uid=500 pid=12 deed=drain object=/workers outcome=refused status=403\n"))
      << log;
  size_t refused = 0;
  for (size_t at = log.find("status=403"); at != log.npos; at = log.find("status=403", at + 1)) {
    ++refused;
  }
  EXPECT_EQ(refused, 5U) << "who may give no orders does not flood the log";
}

TEST_F(OperatorApiTest, AnOrderWhoseGiverHasLeftIsInTheLogToo) {
  const std::string id = dead();
  testing::internal::CaptureStderr();
  tool_.send(++number_, wire::Ask{.method = "POST", .path = "/dead/" + id + "/requeue"});
  turn();
  tool_.close();
  turn();
  settle();
  EXPECT_NE(testing::internal::GetCapturedStderr().find("deed=requeue object=/dead/" + id +
                                                        " outcome=unknown\n"),
            std::string::npos);
}

TEST_F(OperatorApiTest, RemembersTheLastOrdersAndWhoGaveThem) {
  order("GET", "/jobs");
  ask(tool_, ++number_,
      {.owner = "alice\n at 127.0.0.1", .method = "POST", .path = "/queues/default/pause"});
  const Reply given = order("GET", "/orders");
  EXPECT_TRUE(holds(given, R"("who":"'alice\n at 127.0.0.1', by uid )")) << given.body;
  EXPECT_TRUE(holds(given, R"("order":"POST /queues/default/pause"}]})")) << given.body;
  for (size_t i = 0; i < OperatorApi::kKeptOrders; ++i) {
    order("POST", "/queues/none/pause");
  }
  EXPECT_FALSE(holds(order("GET", "/orders"), "alice"));
}

TEST_F(OperatorApiTest, SeesEverybodysJobsAndWhoseTheyAre) {
  Peer peer = caller();
  wire::Submit pro = async();
  pro.tier = "pro";
  pro.priority = 10;
  pro.model = "demo";
  pro.owner = "Bearer sk-other";
  const std::string mine = promised(peer, 1);
  const std::string other = promised(peer, 2, pro);
  const Reply all = order("GET", "/jobs");
  EXPECT_TRUE(holds(all, mine) && holds(all, other)) << all.body;
  EXPECT_TRUE(holds(all, R"("model":"demo","tier":"pro","priority":10,"owner":")")) << all.body;
  EXPECT_FALSE(holds(all, "sk-other"));
  const Reply one = order("GET", "/jobs/" + other);
  EXPECT_TRUE(holds(one, R"("tier":"pro")") && holds(one, R"("position":1)")) << one.body;
  EXPECT_FALSE(holds(get_job(peer, 3, mine), "\"owner\"")) << "an owner sees less";
}

TEST_F(OperatorApiTest, FiltersByOwnerQueueAndStatus) {
  config_.queues.push_back(QueueConfig{"video"});
  config_.workers.push_back(config_.workers[0]);
  config_.workers.back().name = "film";
  config_.workers.back().queue = "video";
  supervisor_.apply(config_);
  Peer peer = caller();
  wire::Submit film = async();
  film.queue = "video";
  film.owner = "Bearer sk-other";
  const std::string mine = promised(peer, 1);
  const std::string other = promised(peer, 2, film);
  const auto only = [&](const std::string& query, const std::string& id,
                        const std::string& not_id) {
    const Reply list = order("GET", "/jobs", query);
    EXPECT_TRUE(holds(list, id)) << query << list.body;
    EXPECT_FALSE(holds(list, not_id)) << query << list.body;
  };
  only("owner=Bearer+sk-other", other, mine);
  only("queue=video", other, mine);
  only("queue=default&status=queued", mine, other);
  only("limit=1", other, mine);  // the newest
  only("limit=1&after=" + other, mine, other);
  EXPECT_EQ(order("GET", "/jobs", "status=lost").status, 400U);
  EXPECT_EQ(order("GET", "/jobs", "limit=0").status, 400U);
  EXPECT_EQ(order("GET", "/jobs", "after=job_1").status, 400U);
}

TEST_F(OperatorApiTest, FiltersByAnOwnersHashAsItIsShown) {
  Peer peer = caller();
  wire::Submit theirs = async();
  theirs.owner = "Bearer sk-other";
  const std::string mine = promised(peer, 1);
  const std::string other = promised(peer, 2, theirs);
  const std::string job = order("GET", "/jobs/" + other).body;
  const std::string hash = job.substr(job.find(R"("owner":")") + 9, 32);
  const Reply list = order("GET", "/jobs", "owner_hash=" + hash);
  EXPECT_TRUE(holds(list, other) && !holds(list, mine)) << list.body;
  EXPECT_FALSE(holds(order("GET", "/jobs", "owner_hash=" + std::string(32, 'a')), "job_"));
  for (const std::string& wrong : {hash.substr(1), hash + "&owner=a", std::string(32, 'x')}) {
    EXPECT_EQ(order("GET", "/jobs", "owner_hash=" + wrong).status, 400U) << wrong;
  }
}

TEST_F(OperatorApiTest, TellsTheLastPredictionsBesideWhatCameTrue) {
  EXPECT_EQ(order("GET", "/predictions").body, R"({"predictions":[]})");
  Peer device = worker(1);
  Peer peer = caller();
  const auto run = [&] {
    const uint64_t job = take(device);
    advance(10 * kNsPerSec);
    device.send(job, wire::Head{.status = 200});
    device.send(job, wire::Done{});
    device.send(0, wire::Take{1});
    settle();
  };
  promised(peer, 1);  // what it takes is not known yet: nothing is told
  run();
  promised(peer, 2);
  const std::string waits = promised(peer, 3);
  run();
  run();
  const Reply told = order("GET", "/predictions");
  EXPECT_TRUE(holds(
      told, R"({"predictions":[{"id":")" + waits + R"(","queue":"default","model":null,"at":)"))
      << told.body;
  EXPECT_TRUE(holds(told, R"("said_ms":10000,)")) << told.body;
  EXPECT_TRUE(holds(told, R"("waited_ms":10010,"inside":true}]})")) << told.body;
}

TEST_F(OperatorApiTest, CancelsAnybodysJob) {
  Peer peer = caller();
  const std::string id = promised(peer, 1);
  EXPECT_TRUE(holds(order("DELETE", "/jobs/" + id), R"("status":"cancelled")"));
  EXPECT_EQ(dispatcher_.jobs(), 0U);
  EXPECT_EQ(order("DELETE", "/jobs/job_01ARZ3NDEKTSV4RRFFQ69G5FAV").status, 404U);
}

TEST_F(OperatorApiTest, SeesAJobThatSomebodyWaitsForByItsId) {
  Peer peer = caller();
  Peer device = worker(1);
  submit(peer, 1, post());
  const auto accepted = peer.next();
  ASSERT_TRUE(accepted);
  const std::string id(accepted->as<wire::Accepted>().job_id);
  EXPECT_TRUE(holds(order("GET", "/jobs/" + id), R"("tier":null)"));
  EXPECT_TRUE(holds(order("DELETE", "/jobs/" + id), R"("status":"cancelled")"));
}

TEST_F(OperatorApiTest, ADeadLetterIsShownWithItsErrorAndRequest) {
  const std::string id = dead(async("{\"n\":\"\xC3\xA9\"}"));
  const Reply list = order("GET", "/dead");
  EXPECT_TRUE(holds(list, id) && holds(list, "Out of paper.")) << list.body;
  EXPECT_FALSE(holds(order("GET", "/dead", "queue=video"), id));
  const Reply one = order("GET", "/dead/" + id);
  EXPECT_TRUE(holds(one, R"("attempts":1)")) << one.body;
  EXPECT_TRUE(holds(one, R"("request":{"method":"POST","path":"/v1/completions")")) << one.body;
  EXPECT_TRUE(holds(one, "\"body\":\"{\\\"n\\\":\\\"\xC3\xA9\\\"}\"")) << one.body;
  EXPECT_FALSE(holds(one, "sk-secret")) << one.body;
}

TEST_F(OperatorApiTest, ABodyThatIsNoTextIsShownInBase64AndALongOneInPart) {
  const Reply image = order("GET", "/dead/" + dead(async("\xFF\xD8\xFF")));
  EXPECT_TRUE(holds(image, R"("body_base64":"/9j/")")) << image.body;
  const std::string text = std::string(OperatorApi::kMostShownBytes - 1, 'x') + "\xC3\xA9yyy";
  const Reply cut = order("GET", "/dead/" + dead(async(text)));
  EXPECT_TRUE(holds(cut, R"("truncated":true,"body":"xxx)"));
  EXPECT_TRUE(holds(cut, R"("body_bytes":)" + std::to_string(text.size())));
  EXPECT_TRUE(holds(cut, "xxx\"}")) << "what was cut in the middle of a character is still text";
}

TEST_F(OperatorApiTest, ADeadLetterThatIsQueuedAgainRunsAsIfNew) {
  wire::Submit charged = async();
  charged.receipt = "what it was charged";
  const std::string id = dead(charged);
  const Reply again = order("POST", "/dead/" + id + "/requeue");
  EXPECT_TRUE(holds(again, R"("status":"queued")") && holds(again, R"("attempts":0)"))
      << again.code << again.body;
  EXPECT_FALSE(holds(order("GET", "/dead"), id));
  EXPECT_EQ(order("POST", "/dead/" + id + "/requeue").status, 404U);
  ASSERT_NE(dispatcher_.find(*parse_job_id(id)), nullptr);
  EXPECT_TRUE(dispatcher_.find(*parse_job_id(id))->more == nullptr ||
              dispatcher_.find(*parse_job_id(id))->more->receipt.empty())
      << "its charge was given back when it failed";
  Peer device = worker(1);
  settle();
  answer(device, take(device), "now it works");
  EXPECT_EQ(get_job(tool_, 99, "jobs/" + id, "/result").body, "now it works");
}

TEST_F(OperatorApiTest, ItIsQueuedAgainEvenIfWhoeverAskedHasLeft) {
  const std::string id = dead();
  tool_.send(1, wire::Ask{.method = "POST", .path = "/dead/" + id + "/requeue"});
  turn();  // the store is asked whether that is dead
  pollfd ready{store_->event_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&ready, 1, 10'000), 1);
  store_->tell_done();  // it is, and is to be queued
  tool_.close();
  settle();
  EXPECT_NE(dispatcher_.find(*parse_job_id(id)), nullptr);
}

TEST_F(OperatorApiTest, ADeadLetterIsDroppedOnceAndNothingElseIs) {
  const std::string id = dead();
  EXPECT_TRUE(holds(order("DELETE", "/dead/" + id), R"("dropped":true)"));
  EXPECT_EQ(order("DELETE", "/dead/" + id).status, 404U);
  EXPECT_EQ(order("GET", "/jobs/" + id).status, 404U);
  Peer peer = caller();
  const std::string alive = promised(peer, 1);
  EXPECT_EQ(order("DELETE", "/dead/" + alive).status, 404U);
  EXPECT_EQ(order("GET", "/jobs/" + alive).status, 200U);
  EXPECT_EQ(order("GET", "/dead/x").status, 400U);
}

TEST_F(OperatorApiTest, ADeadLetterOfAQueueThatIsGoneStaysDead) {
  const std::string id = dead();
  // The scheduler forgets no queue; a state folder may come from another configuration.
  JobRecord lost;
  lost.id = *parse_job_id("job_01ARZ3NDEKTSV4RRFFQ69G5FAV");
  lost.queue = "lost";
  lost.created_ms = kWallMs;
  store_->promise(lost, "", [](PromiseOutcome) {});
  settle();
  dispatcher_.restore(std::move(lost));
  settle();
  const Reply refused = order("POST", "/dead/job_01ARZ3NDEKTSV4RRFFQ69G5FAV/requeue");
  EXPECT_EQ(refused.status, 409U);
  EXPECT_TRUE(holds(order("GET", "/dead"), "job_01ARZ3NDEKTSV4RRFFQ69G5FAV"));
}

TEST_F(OperatorApiTest, APausedQueueGivesNothingOutUntilItIsResumed) {
  EXPECT_TRUE(holds(order("POST", "/queues/default/pause"), R"("paused":true)"));
  Peer device = worker(1);
  Peer peer = caller();
  promised(peer, 1);
  EXPECT_FALSE(device.next());
  EXPECT_TRUE(holds(order("POST", "/queues/default/resume"), R"("paused":false)"));
  settle();
  EXPECT_TRUE(device.next());
  EXPECT_EQ(order("POST", "/queues/nothing/pause").status, 404U);
  EXPECT_EQ(order("POST", "/queues/default/stop").status, 404U);
}

TEST_F(OperatorApiTest, ScaledProcessesShareTheWorkersSlots) {
  EXPECT_TRUE(holds(order("POST", "/workers/demo/scale", "n=3"), R"("processes":3,"slots":4)"));
  ASSERT_EQ(supervisor_.workers().size(), 3U);
  supervisor_.apply(config_);  // a reload
  EXPECT_EQ(supervisor_.workers().size(), 3U);
  EXPECT_TRUE(holds(order("POST", "/workers/demo/scale", "n=0"), R"("processes":0,"slots":0)"));
  EXPECT_TRUE(supervisor_.workers().empty());
  Peer peer = caller();
  promised(peer, 1);  // its model is still known, and its promise is kept
  EXPECT_TRUE(holds(order("POST", "/workers/demo/scale", "n=1"), R"("processes":1,"slots":4)"));
  EXPECT_EQ(supervisor_.workers().size(), 1U);
}

TEST_F(OperatorApiTest, ADrainedWorkerIsNotStartedAgain) {
  EXPECT_TRUE(holds(order("POST", "/workers/demo/drain"), R"("processes":0)"));
  EXPECT_TRUE(supervisor_.workers().empty());
  supervisor_.apply(config_);
  EXPECT_TRUE(supervisor_.workers().empty());
  order("POST", "/workers/demo/scale", "n=2");
  EXPECT_TRUE(holds(order("POST", "/workers/drain"), R"("draining":["demo"])"));
  EXPECT_TRUE(supervisor_.workers().empty());
}

TEST_F(OperatorApiTest, WhatIsWrongIsToldWithWhatWouldBeRight) {
  for (const char* n : {"", "n=", "n=-1", "n=5", "n=1x", "n=99999999999", "m=1", "n=%"}) {
    EXPECT_EQ(order("POST", "/workers/demo/scale", n).status, 400U) << n;
  }
  for (const char* path :
       {"", "/", "jobs", "/job", "/jobsx", "/queues", "/queues/default", "/workers/demo",
        "/workers/x/drain", "/workers/demo/stop", "/a/b/c/d/e"}) {
    EXPECT_EQ(order("POST", path).status, 404U) << path;
  }
  for (const char* path : {"/queues/default/pause", "/workers/demo/drain", "/workers/drain"}) {
    const Reply refused = order("GET", path);
    EXPECT_EQ(refused.status, 405U) << path;
    EXPECT_EQ(refused.headers, "Allow: POST\n") << path;
  }
  for (const auto& [path, allow] :
       {std::pair("/dead", "Allow: GET\n"),
        std::pair("/dead/job_01ARZ3NDEKTSV4RRFFQ69G5FAV", "Allow: GET, DELETE\n"),
        std::pair("/jobs", "Allow: GET, HEAD\n")}) {
    const Reply refused = order("PUT", path);
    EXPECT_EQ(refused.status, 405U) << path;
    EXPECT_EQ(refused.headers, allow) << path;
  }
}

TEST_F(OperatorApiTest, CallersAreNoOperators) {
  Peer peer = caller();
  promised(peer, 1);
  EXPECT_EQ(ask(peer, 2, get("/queues/default/pause")).status, 404U);
  EXPECT_FALSE(dispatcher_.scheduler().find_queue("default")->paused);
  EXPECT_EQ(ask(peer, 3, get("/dead")).status, 404U);
}

}  // namespace
}  // namespace penstock::queue
