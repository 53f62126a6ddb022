// What is promised, with the real store beneath.
#include <map>
#include <set>
#include <thread>

#include "promise_fixture.h"
#include "worker/queue/jobs/job_view.h"

namespace penstock::queue {
namespace {

using wire::FrameType;

TEST_F(PromiseTest, A202SaysWhereToLook) {
  Peer peer = caller();
  submit(peer, 1, async());
  const Reply said = reply(peer, 1);
  EXPECT_EQ(said.status, 202U);
  EXPECT_TRUE(said.promised);
  EXPECT_TRUE(said.done);
  EXPECT_NE(said.headers.find("Location: /jobs/" + said.job_id + "\n"), std::string::npos);
  EXPECT_NE(said.headers.find("Preference-Applied: respond-async\n"), std::string::npos);
  EXPECT_NE(said.body.find(R"("status":"queued")"), std::string::npos);
  EXPECT_NE(said.body.find(R"("position":1)"), std::string::npos);
}

TEST_F(PromiseTest, AJobOutlivesItsCallerAndKeepsItsResult) {
  std::string id;
  {
    Peer peer = caller();
    id = promised(peer, 1);
    peer.close();
    settle();
  }
  Peer device = worker(1);
  settle();
  answer(device, take(device), "the answer");
  Peer again = caller();
  const Reply job = get_job(again, 1, id);
  EXPECT_NE(job.body.find(R"("status":"completed")"), std::string::npos) << job.body;
  EXPECT_NE(job.body.find("\"result_url\":\"/jobs/" + id + "/result\""), std::string::npos);
  const Reply result = get_job(again, 2, id, "/result");
  EXPECT_EQ(result.status, 200U);
  EXPECT_EQ(result.body, "the answer");
  EXPECT_EQ(dispatcher_.jobs(), 0U);
}

TEST_F(PromiseTest, AJobIsThereAgainAfterARestart) {
  Peer peer = caller();
  const std::string first = promised(peer, 1, async("{\"n\":1}"));
  const std::string second = promised(peer, 2, async("{\"n\":2}"));
  store_.reset();
  SessionTest::TearDown();
  auto opened = Store::open({.folder = folder_ + "/state"});
  ASSERT_TRUE(opened);
  std::vector<std::string> ids;
  ASSERT_TRUE((*opened)->recover([&](JobRecord&& job) { ids.emplace_back(job.id.view()); },
                                 [](const std::string&) {}));
  EXPECT_EQ(ids, (std::vector{first, second}));
  store_ = *std::move(opened);
  dispatcher_.use(*store_);
}

TEST_F(PromiseTest, TheBodyComesFromDiskAndIsWhatWasSent) {
  Peer peer = caller();
  constexpr int kJobs = 50;
  for (uint64_t i = 0; i < kJobs; ++i) {
    promised(peer, i + 1, async(std::string(100'000 + i, 'x')));
  }
  EXPECT_LE(dispatcher_.frame_bytes(), Dispatcher::kWarmBytes);
  Peer device = worker(1);
  settle();
  for (uint64_t i = 0; i < kJobs; ++i) {
    const auto job = device.next();
    ASSERT_TRUE(job);
    const auto submit = job->as<wire::Submit>();
    EXPECT_EQ(submit.body, std::string(100'000 + i, 'x'));
    EXPECT_EQ(submit.owner, "");
    answer(device, job->id, "done");
  }
  EXPECT_EQ(dispatcher_.frame_bytes(), 0);
}

TEST_F(PromiseTest, AnotherOwnersJobIsNotThereInAnyEndpoint) {
  Peer peer = caller();
  const std::string id = promised(peer, 1);
  uint64_t number = 10;
  for (const char* part : {"", "/events", "/result"}) {
    for (const std::string& path :
         {"/" + id + part, "/job_01ARZ3NDEKTSV4RRFFQ69G5FAV" + std::string(part)}) {
      wire::Ask question = get(path);
      question.owner = "Bearer sk-other";
      const Reply refused = ask(peer, ++number, question);
      EXPECT_EQ(refused.status, 404U) << path;
      EXPECT_EQ(refused.code, "not_found");
    }
  }
  wire::Ask cancel = get("/" + id);
  cancel.owner = "Bearer sk-other";
  cancel.method = "DELETE";
  EXPECT_EQ(ask(peer, ++number, cancel).status, 404U);
  wire::Ask list = get("");
  list.owner = "Bearer sk-other";
  EXPECT_NE(ask(peer, ++number, list).body.find(R"("data":[])"), std::string::npos);
  EXPECT_NE(ask(peer, ++number, get("")).body.find(id), std::string::npos);
}

TEST_F(PromiseTest, NobodysJobIsSeenByWhoeverKnowsItsIdAndInNoList) {
  Peer peer = caller();
  wire::Submit message = async();
  message.owner = "";
  message.share = "192.0.2.1";
  const std::string id = promised(peer, 1, message);
  uint64_t number = 10;
  for (const char* who : {"", "192.0.2.1", "Bearer sk-other"}) {
    wire::Ask question = get("/" + id);
    question.owner = who;
    EXPECT_EQ(ask(peer, ++number, question).status, 200U) << who;
    wire::Ask list = get("");
    list.owner = who;
    EXPECT_EQ(ask(peer, ++number, list).body.find(id), std::string::npos) << who;
  }
  wire::Ask cancel = get("/" + id);
  cancel.method = "DELETE";
  EXPECT_EQ(ask(peer, ++number, cancel).status, 200U);
  wire::Ask ended = get("/" + id);
  ended.owner = "Bearer sk-other";
  EXPECT_EQ(ask(peer, ++number, ended).status, 200U);
}

TEST_F(PromiseTest, AScheduledJobThatIsCancelledIsSeenTheSameTheSecondTime) {
  Peer peer = caller();
  wire::Submit message = async();
  message.delay = "3600";
  const std::string id = promised(peer, 1, message);
  EXPECT_NE(get_job(peer, 2, id).body.find("\"not_before\":"), std::string::npos);
  wire::Ask cancel = get("/" + id);
  cancel.method = "DELETE";
  const std::string first = ask(peer, 3, cancel).body;
  EXPECT_NE(first.find(R"("status":"cancelled")"), std::string::npos) << first;
  EXPECT_EQ(ask(peer, 4, cancel).body, first);
  EXPECT_EQ(get_job(peer, 5, id).body, first);
}

TEST_F(PromiseTest, TheShareOfAPromisedJobOutlivesPenstockd) {
  Peer peer = caller();
  Peer device = worker(0);
  uint64_t id = 0;
  for (const char* share : {"192.0.2.1", "192.0.2.1", "192.0.2.2"}) {
    wire::Submit message = async();
    message.owner = "";
    message.share = share;
    message.body = share;
    promised(peer, ++id, message);
  }
  std::vector<JobRecord> kept;
  store_.reset();
  auto opened = Store::open({.folder = folder_ + "/state"});
  ASSERT_TRUE(opened);
  ASSERT_TRUE((*opened)->recover([&](JobRecord&& job) { kept.push_back(std::move(job)); },
                                 [](const std::string&) {}));
  ASSERT_EQ(kept.size(), 3U);
  EXPECT_EQ(kept[0].share, kept[1].share);
  EXPECT_FALSE(kept[0].share == kept[2].share);
  EXPECT_EQ(kept[0].owner, limit::Hash128{});
}

TEST_F(PromiseTest, TheSameKeyOfAnotherShareIsAnotherJobWhereThereIsNoOwner) {
  Peer peer = caller();
  wire::Submit one = keyed(async());
  one.owner = "";
  one.share = "192.0.2.1";
  const std::string id = promised(peer, 1, one);
  wire::Submit other = one;
  other.share = "192.0.2.2";
  EXPECT_NE(promised(peer, 2, other), id);
  submit(peer, 3, one);
  EXPECT_EQ(reply(peer, 3).job_id, id);
  // An owner's key is the owner's, from wherever it comes.
  wire::Submit owned = keyed(async());
  owned.share = "192.0.2.1";
  const std::string its = promised(peer, 4, owned);
  owned.share = "192.0.2.2";
  submit(peer, 5, owned);
  EXPECT_EQ(reply(peer, 5).job_id, its);
}

TEST_F(PromiseTest, WhatIsDeduplicatedIsOfOneShareWhereThereIsNoOwner) {
  Peer peer = caller();
  Peer device = worker(1);
  wire::Submit message = post();
  message.owner = "";
  message.dedupe = 1;
  message.share = "192.0.2.1";
  submit(peer, 1, message);
  submit(peer, 2, message);
  EXPECT_EQ(dispatcher_.jobs(), 1U);
  message.share = "192.0.2.2";
  submit(peer, 3, message);
  EXPECT_EQ(dispatcher_.jobs(), 2U);
}

TEST_F(PromiseTest, TheSameKeyJoinsTheJobThatIsThere) {
  Peer peer = caller();
  const std::string id = promised(peer, 1, keyed(async()));
  submit(peer, 2, keyed(async()));
  const Reply again = reply(peer, 2);
  EXPECT_EQ(again.status, 202U);
  EXPECT_EQ(again.job_id, id);
  EXPECT_TRUE(again.duplicate);
  EXPECT_FALSE(again.promised);
  EXPECT_NE(again.headers.find("Penstock-Duplicate: true\n"), std::string::npos);
  EXPECT_EQ(dispatcher_.jobs(), 1U);
}

TEST_F(PromiseTest, TheSameKeyWithAnotherBodyIsRefused) {
  Peer peer = caller();
  promised(peer, 1, keyed(async("{\"a\":1}")));
  submit(peer, 2, keyed(async("{\"a\":2}")));
  EXPECT_EQ(reply(peer, 2).status, 422U);
}

// What was asked for the second time would be dropped without a word.
TEST_F(PromiseTest, TheSameKeyWithAnotherCallbackDelayOrDateIsRefused) {
  intake_.check_callback = [](std::string_view) { return Ok{}; };
  const auto with = [](auto field, std::string_view value) {
    wire::Submit message = keyed(async());
    message.*field = value;
    return message;
  };
  const wire::Submit others[] = {with(&wire::Submit::callback, "https://b.example/"),
                                 with(&wire::Submit::delay, "3600"),
                                 with(&wire::Submit::not_before, "Sun, 06 Nov 2033 08:49:37 GMT")};
  Peer peer = caller();
  uint64_t id = 0;
  const auto ask = [&](const wire::Submit& message) {
    submit(peer, ++id, message);
    return reply(peer, id);
  };
  EXPECT_EQ(ask(keyed(async())).status, 202U);
  for (const wire::Submit& other : others) {
    EXPECT_EQ(ask(other).status, 422U);
  }
  for (size_t i = 0; i < std::size(others); ++i) {  // the other way round, and with itself
    const std::string key = "\"other" + std::to_string(i) + "\"";
    EXPECT_EQ(ask(keyed(others[i], key)).status, 202U);
    EXPECT_TRUE(ask(keyed(others[i], key)).duplicate);
    EXPECT_EQ(ask(keyed(async(), key)).status, 422U);
  }
}

TEST_F(PromiseTest, TheSameKeyOfAnotherOwnerIsAnotherJob) {
  Peer peer = caller();
  const std::string id = promised(peer, 1, keyed(async()));
  wire::Submit other = keyed(async());
  other.owner = "Bearer sk-other";
  EXPECT_NE(promised(peer, 2, other), id);
}

TEST_F(PromiseTest, ADuplicateInFlightMayBeRejected) {
  Peer peer = caller();
  promised(peer, 1, keyed(async()));
  wire::Submit again = keyed(async());
  again.on_duplicate = static_cast<uint64_t>(wire::OnDuplicate::kReject);
  submit(peer, 2, again);
  const Reply refused = reply(peer, 2);
  EXPECT_EQ(refused.status, 409U);
  EXPECT_EQ(refused.code, "duplicate");
}

TEST_F(PromiseTest, AFinishedAnswerIsReplayedForItsKey) {
  Peer peer = caller();
  Peer device = worker(1);
  submit(peer, 1, keyed(post()));  // one that waits
  answer(device, take(device), "made once");
  EXPECT_EQ(reply(peer, 1).body, "made once");
  submit(peer, 2, keyed(post()));
  const Reply again = reply(peer, 2);
  EXPECT_EQ(again.body, "made once");
  EXPECT_TRUE(again.duplicate);
  EXPECT_FALSE(device.next()) << "it ran twice";
}

TEST_F(PromiseTest, AKeyThatFailedMayBeTriedAgain) {
  Peer peer = caller();
  Peer device = worker(1);
  submit(peer, 1, keyed(async()));
  device.send(take(device), wire::Failed{.status = 400, .code = "invalid_request"});
  device.send(0, wire::Take{1});
  settle();
  reply(peer, 1);
  submit(peer, 2, keyed(async()));
  EXPECT_EQ(reply(peer, 2).status, 202U);
  answer(device, take(device), "now it works");
}

TEST_F(PromiseTest, WaitersThatJoinShareOneRunAndOneStream) {
  Peer first = caller();
  Peer second = caller();
  Peer device = worker(1);
  submit(first, 1, keyed(post()));
  const uint64_t number = take(device);
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  say(device, number, "one ");
  submit(second, 9, keyed(post()));  // in the middle of the answer
  say(device, number, "two");
  device.send(number, wire::Done{});
  settle();
  const Reply one = reply(first, 1);
  const Reply two = reply(second, 9);
  EXPECT_EQ(one.body, "one two");
  EXPECT_EQ(two.body, "one two");
  EXPECT_FALSE(one.duplicate);
  EXPECT_TRUE(two.duplicate);
  EXPECT_EQ(one.job_id, two.job_id);
}

TEST_F(PromiseTest, WhoJoinsWhatWasNotPromisedIsToldWhatCameOfIt) {
  Peer peer = caller();
  Peer other = caller();
  Peer device = worker(4);
  wire::Submit joined = post();
  wire::Submit joins = async();
  joined.dedupe = joins.dedupe = 1;
  submit(peer, 1, joined);
  submit(other, 2, joins);
  const uint64_t first = take(device);
  device.send(first, wire::Failed{.status = 400, .code = "invalid_request", .message = "no"});
  settle();
  EXPECT_EQ(reply(peer, 1).status, 400U);
  const Reply refused = reply(other, 2);
  EXPECT_EQ(refused.status, 400U) << "no 202 for what is nowhere: " << refused.headers;
  submit(peer, 3, joined);
  submit(other, 4, joins);
  answer(device, take(device), "the answer");
  EXPECT_EQ(reply(peer, 3).body, "the answer");
  const Reply told = reply(other, 4);
  EXPECT_EQ(told.status, 200U);
  EXPECT_EQ(told.body, "the answer");
  submit(peer, 5, keyed(post()));
  submit(other, 6, keyed(async()));
  answer(device, take(device), "kept");
  EXPECT_EQ(reply(peer, 5).body, "kept");
  EXPECT_EQ(reply(other, 6).body, "kept");
  peer.send(7, keyed(post(), "\"k2\""));
  turn();
  submit(other, 8, keyed(async(), "\"k2\""));  // while the key is being looked up
  device.send(take(device), wire::Failed{.status = 400, .code = "invalid_request"});
  settle();
  EXPECT_EQ(reply(peer, 7).status, 400U);
  EXPECT_EQ(reply(other, 8).status, 400U);
  peer.send(9, keyed(async(), "\"k3\""));
  turn();
  submit(other, 10, keyed(async(), "\"k3\""));
  EXPECT_EQ(reply(peer, 9).status, 202U);
  EXPECT_EQ(reply(other, 10).status, 202U) << "this one is promised";
}

TEST_F(PromiseTest, WhoWantsAWebhookDoesNotJoinAJobThatSendsNone) {
  intake_.check_callback = [](std::string_view) { return Ok{}; };
  std::vector<std::string> due;
  dispatcher_.on_callback_due = [&](const JobId& id, uint64_t) { due.emplace_back(id.view()); };
  Peer peer = caller();
  wire::Submit message = async();
  message.dedupe = 1;
  const std::string first = promised(peer, 1, message);
  message.callback = "https://example.com/hook";
  const std::string second = promised(peer, 2, message);
  EXPECT_NE(second, first);
  EXPECT_EQ(promised(peer, 3, message), second);
  Peer device = worker(2);
  settle();
  answer(device, take(device), "one");
  answer(device, take(device), "two");
  EXPECT_EQ(due, std::vector{second});
}

TEST_F(PromiseTest, AWebhookTakesTheShareThatItsJobTookHoweverItEnded) {
  intake_.check_callback = [](std::string_view) { return Ok{}; };
  config_.queues[0].attempts = 1;
  config_.queues[0].deadline_ns = kNsPerSec;
  dispatcher_.apply(config_);
  std::vector<uint64_t> shares;
  dispatcher_.on_callback_due = [&](const JobId&, uint64_t share) { shares.push_back(share); };
  Peer peer = caller();
  wire::Submit message = async();
  message.callback = "https://example.com/hook";
  for (const std::string_view share : {"a", "b", "c"}) {
    message.share = share;
    promised(peer, 1, message);
  }
  Peer device = worker(1);
  settle();
  answer(device, take(device), "done");
  device.send(take(device), wire::Failed{.status = 500, .code = "engine_failed", .retryable = 1});
  settle();
  now_ns_ += kNsPerSec;
  dispatcher_.advance_to(now_ns_);
  settle();
  EXPECT_EQ(shares, (std::vector{intake_.hash_of("a").lo, intake_.hash_of("b").lo,
                                 intake_.hash_of("c").lo}));
}

TEST_F(PromiseTest, ASharedRunGoesOnUntilTheLastOfThemLeaves) {
  Peer first = caller();
  Peer second = caller();
  Peer device = worker(1);
  wire::Submit message = post();
  message.dedupe = 1;
  submit(first, 1, message);
  const uint64_t number = take(device);
  submit(second, 1, message);
  first.close();
  settle();
  EXPECT_FALSE(device.next());
  second.close();
  settle();
  const auto cancel = device.next();
  ASSERT_TRUE(cancel);
  EXPECT_EQ(cancel->type, FrameType::kCancel);
  EXPECT_EQ(cancel->id, number);
}

TEST_F(PromiseTest, WithWaitTheAnswerComesIfItIsThereInTime) {
  Peer peer = caller();
  Peer device = worker(1);
  wire::Submit message = async();
  message.prefer = "respond-async, wait=5";
  submit(peer, 1, message);
  EXPECT_FALSE(reply(peer, 1).done);
  answer(device, take(device), "in time");
  const Reply said = reply(peer, 1);
  EXPECT_EQ(said.status, 200U);
  EXPECT_EQ(said.body, "in time");
  EXPECT_TRUE(said.promised);
}

TEST_F(PromiseTest, WithWaitThe202ComesWhenThatIsOver) {
  Peer peer = caller();
  Peer device = worker(1);
  wire::Submit message = async();
  message.prefer = "respond-async, wait=5";
  submit(peer, 1, message);
  advance(4 * kNsPerSec);
  EXPECT_FALSE(reply(peer, 1).done);
  advance(kNsPerSec);
  EXPECT_EQ(reply(peer, 1).status, 202U);
}

TEST_F(PromiseTest, AnEndThatCannotBeWrittenKeepsNobodyWaitingLongerThanAsked) {
  Peer peer = caller();
  Peer device = worker(1);
  wire::Submit message = keyed(async());
  message.prefer = "respond-async, wait=5";
  submit(peer, 1, message);
  reply(peer, 1);
  std::filesystem::remove_all(folder_ + "/state/results");
  const uint64_t number = take(device);
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  say(device, number, std::string(2 * Store::kInlineBytes, 'x'));
  device.send(number, wire::Done{});
  turn();
  EXPECT_FALSE(reply(peer, 1).done);
  advance(5 * kNsPerSec);
  const Reply said = reply(peer, 1);
  EXPECT_EQ(said.status, 202U);
  EXPECT_NE(said.body.find("\"processing\""), std::string::npos) << said.body;
  peer.send(2, keyed(async()));  // nor who joins it now
  turn();
  EXPECT_EQ(reply(peer, 2).status, 202U);
}

TEST_F(PromiseTest, AJobWhoseEndCannotBeWrittenIsNotOverInAnyEndpoint) {
  Peer peer = caller();
  Peer device = worker(1);
  const std::string id = promised(peer, 1);
  files_.fail(FaultFiles::Call::kOpen, EMFILE);
  end_with_a_file(device);
  peer.send(2, get("/" + id));
  const Reply job = wait_for_reply(peer, 2);
  EXPECT_NE(job.body.find("\"processing\""), std::string::npos) << job.body;
  peer.send(3, get("/" + id + "/result"));
  EXPECT_EQ(wait_for_reply(peer, 3).status, 202U);
  peer.send(4, get(""));
  const Reply list = wait_for_reply(peer, 4);
  EXPECT_NE(list.body.find("\"processing\""), std::string::npos) << list.body;
  peer.send(5, get("/" + id + "/events"));
  const Reply events = wait_for_reply(peer, 5);
  EXPECT_TRUE(events.body.starts_with("retry: ")) << events.body;
  EXPECT_FALSE(events.done);
  files_.heal();
  settle();
  EXPECT_NE(reply(peer, 5).body.find("event: completed"), std::string::npos);
}

TEST_F(PromiseTest, WhileNothingCanBeWrittenNoAnswerIsPromisedToBeKept) {
  Peer peer = caller();
  Peer device = worker(3);
  promised(peer, 1);
  files_.fail(FaultFiles::Call::kWrite, ENOSPC);
  const uint64_t number = end_with_a_file(device);
  while (store_->health()) {
    std::this_thread::yield();
  }
  peer.send(2, keyed(post()));
  const Reply refused = wait_for_reply(peer, 2);
  EXPECT_EQ(refused.status, 503U);
  EXPECT_EQ(refused.code, "busy");
  peer.send(3, post());
  turn();
  EXPECT_EQ(take(device), number + 1) << "who only waits needs no disk";
  files_.heal();
  settle();
  peer.send(4, keyed(post()));
  settle();
  EXPECT_EQ(take(device), number + 2);
}

TEST_F(PromiseTest, QuestionsThatTheStoreDoesNotAnswerAreBounded) {
  settle();
  Peer peer = caller();
  uint64_t id = 0;
  for (size_t asked = 0; asked < Store::kMostPending;) {
    std::string questions;
    for (int i = 0; i < 200; ++i, ++asked) {  // each leaves before it is answered
      wire::append(questions, ++id, get(i % 2 == 0 ? "" : "/job_01ARZ3NDEKTSV4RRFFQ69G5FAV"));
      wire::append_empty(questions, FrameType::kCancel, id);
    }
    peer.send_bytes(questions);
    loop_.run_once(0, 0);
  }
  for (const char* path : {"", "/job_01ARZ3NDEKTSV4RRFFQ69G5FAV/events"}) {
    peer.send(++id, get(path));
    turn();
    const Reply refused = reply(peer, id);
    EXPECT_EQ(refused.status, 503U);
    EXPECT_EQ(refused.code, "busy");
  }
  EXPECT_LE(store_->pending(), Store::kMostPending);
  settle();
  EXPECT_EQ(ask(peer, ++id, get("")).status, 200U);
}

TEST_F(PromiseTest, AScheduledJobSaysItsPositionOnceDue) {
  Peer peer = caller();
  Peer device = worker(1);
  wire::Submit message = post();
  message.delay = "3600";
  const std::string id = promised(peer, 1, message);
  EXPECT_FALSE(device.next());
  EXPECT_NE(get_job(peer, 2, id).body.find(R"("status":"scheduled")"), std::string::npos);
  advance(3599 * kNsPerSec);
  EXPECT_FALSE(device.next());
  advance(kNsPerSec);
  settle();
  EXPECT_NE(take(device), 0U);
}

TEST_F(PromiseTest, ACancelledJobLeavesItsWorkerAndIsSaidToBeCancelled) {
  Peer peer = caller();
  Peer device = worker(1);
  const std::string id = promised(peer, 1);
  const uint64_t number = take(device);
  wire::Ask cancel = get("/" + id);
  cancel.method = "DELETE";
  const Reply said = ask(peer, 2, cancel);
  EXPECT_EQ(said.status, 200U);
  EXPECT_NE(said.body.find(R"("status":"cancelled")"), std::string::npos) << said.body;
  EXPECT_EQ(device.next()->type, FrameType::kCancel);
  EXPECT_NE(number, 0U);
  EXPECT_EQ(get_job(peer, 3, id, "/result").status, 410U);
}

// It is told of when another joins it, before the store has said whether its key is a new one.
TEST_F(PromiseTest, AJobThatIsStillLookedUpMayBeCancelled) {
  Peer peer = caller();
  Peer device = worker(1);
  peer.send(1, keyed(post()));
  peer.send(2, keyed(post()));
  turn();
  const auto accepted = peer.next();
  ASSERT_EQ(accepted->type, wire::FrameType::kAccepted);
  wire::Ask cancel = get("/" + std::string(accepted->as<wire::Accepted>().job_id));
  cancel.method = "DELETE";
  peer.send(3, cancel);
  turn();
  std::set<uint64_t> told;
  while (const auto failed = peer.next()) {
    ASSERT_EQ(failed->type, wire::FrameType::kFailed);
    EXPECT_EQ(failed->as<wire::Failed>().status, 410U);
    told.insert(failed->id);
  }
  EXPECT_EQ(told, (std::set<uint64_t>{1, 2, 3}));
  EXPECT_EQ(dispatcher_.jobs(), 0U);
  settle();
  EXPECT_FALSE(device.next());
}

TEST_F(PromiseTest, WhoJoinsAJobThatIsStillLookedUpHearsAcceptedAgainWhenMoreIsKnown) {
  Peer peer = caller();
  Peer device = worker(1);
  peer.send(1, keyed(post()));
  peer.send(2, keyed(post()));
  turn();
  const auto first = peer.next();
  ASSERT_EQ(first->id, 2U);
  settle();
  std::map<uint64_t, std::string> ids;
  for (int i = 0; i < 2; ++i) {
    const auto accepted = peer.next();
    ASSERT_EQ(accepted->type, wire::FrameType::kAccepted);
    ids[accepted->id] = accepted->as<wire::Accepted>().job_id;
  }
  EXPECT_EQ(ids.size(), 2U);
  EXPECT_EQ(ids[1], ids[2]);
  EXPECT_EQ(ids[2], first->as<wire::Accepted>().job_id);
  EXPECT_EQ(ids.size(), 2U);
  answer(device, take(device), "one run");
  EXPECT_FALSE(device.next());
}

// What a stop waits for, without a look at each job.
TEST_F(PromiseTest, WhatIsUnfinishedIsCounted) {
  EXPECT_EQ(dispatcher_.unfinished(), 0U);
  Peer peer = caller();
  Peer device = worker(1);
  const std::string running = promised(peer, 1);
  EXPECT_EQ(dispatcher_.unfinished(), 1U);
  promised(peer, 2);
  EXPECT_EQ(dispatcher_.unfinished(), 1U) << "a promise that waits is there after a restart, too";
  submit(peer, 3, post());
  EXPECT_EQ(dispatcher_.unfinished(), 2U) << "somebody waits for it";
  peer.send(4, keyed(post()));
  turn();
  EXPECT_EQ(dispatcher_.unfinished(), 3U) << "it is still looked up";
  settle();
  EXPECT_EQ(dispatcher_.unfinished(), 3U);
  const uint64_t number = take(device);
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  device.send(number, wire::Done{});
  turn();
  EXPECT_EQ(dispatcher_.unfinished(), 3U) << "its end is not on disk yet";
  settle();
  EXPECT_EQ(dispatcher_.unfinished(), 2U);
  peer = caller();  // whoever waited has left
  settle();
  EXPECT_EQ(dispatcher_.unfinished(), 0U);
  EXPECT_EQ(dispatcher_.jobs(), 1U);
}

TEST_F(PromiseTest, AJobThatFailedEveryAttemptIsDeadAndKept) {
  Peer peer = caller();
  Peer device = worker(1);
  const std::string id = promised(peer, 1);
  for (uint32_t attempt = 0; attempt < config_.queues[0].attempts; ++attempt) {
    device.send(take(device), wire::Failed{.status = 502,
                                           .code = "engine_failed",
                                           .message = "cudaErrorIllegalAddress",
                                           .retryable = 1});
    device.send(0, wire::Take{1});
    settle();
    advance(60 * kNsPerSec);
    settle();
  }
  const Reply job = get_job(peer, 2, id);
  EXPECT_NE(job.body.find(R"("status":"failed")"), std::string::npos) << job.body;
  EXPECT_NE(job.body.find("cudaErrorIllegalAddress"), std::string::npos);
  EXPECT_EQ(get_job(peer, 3, id, "/result").status, 502U);
  EXPECT_EQ(store_->figures().dead, 1U);
}

TEST_F(PromiseTest, AnAttemptThatDiedInMidAnswerIsMadeAgainFromTheStart) {
  Peer peer = caller();
  const std::string id = promised(peer, 1);
  {
    Peer device = worker(1);
    settle();
    const uint64_t number = take(device);
    device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
    say(device, number, "half of i");
    device.close();
    settle();
  }
  Peer device = worker(1);
  settle();
  answer(device, take(device), "all of it");
  EXPECT_EQ(get_job(peer, 2, id, "/result").body, "all of it");
}

TEST_F(PromiseTest, ALargeResultIsAFile) {
  Peer peer = caller();
  Peer device = worker(1);
  const std::string id = promised(peer, 1);
  const uint64_t number = take(device);
  std::string whole;
  device.send(number, wire::Head{.status = 200, .content_type = "image/png"});
  for (int i = 0; i < 20; ++i) {
    const std::string piece(100'000, static_cast<char>('a' + i));
    whole += piece;
    say(device, number, piece);
  }
  device.send(number, wire::Done{});
  settle();
  const Reply result = get_job(peer, 2, id, "/result");
  ASSERT_FALSE(result.file.empty());
  std::string read(std::filesystem::file_size(result.file), '\0');
  FILE* const file = std::fopen(result.file.c_str(), "rb");
  ASSERT_EQ(std::fread(read.data(), 1, read.size(), file), read.size());
  std::fclose(file);
  EXPECT_EQ(read, whole);
}

TEST_F(PromiseTest, EventsTellTheWholeStory) {
  Peer peer = caller();
  const std::string id = promised(peer, 1);
  peer.send(2, get("/" + id + "/events"));
  settle();
  Peer device = worker(1);
  settle();
  const uint64_t number = take(device);
  device.send(number, wire::Progress{.millionths = 500'000, .step = 5, .steps = 10});
  turn();
  advance(Subscribers::kProgressNs);
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  say(device, number, "half \xC3");
  say(device, number, "\xA4nd");  // a character cut in two
  device.send(number, wire::Done{});
  settle();
  const Reply stream = reply(peer, 2);
  EXPECT_TRUE(stream.done);
  size_t at = 0;
  for (const char* expected :
       {"retry: 2000\n\n", "event: queued\n", "\"position\":1", "event: processing\n",
        "\"fraction\":0.5000,\"step\":5,\"steps\":10", "event: chunk\n",
        "{\"offset\":0,\"text\":\"half \"}", "{\"offset\":5,\"text\":\"\xC3\xA4nd\"}",
        "event: completed\n", "/result\""}) {
    at = stream.body.find(expected, at);
    ASSERT_NE(at, std::string::npos) << expected << " is not in its place in\n" << stream.body;
  }
}

TEST_F(PromiseTest, EventsResumeWhereTheyWere) {
  Peer peer = caller();
  Peer device = worker(1);
  const std::string id = promised(peer, 1);
  const uint64_t number = take(device);
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  say(device, number, "first ");
  peer.send(2, get("/" + id + "/events"));
  settle();
  const std::string seen = reply(peer, 2).body;
  const size_t last = seen.rfind("id: ") + 4;
  const std::string event_id = seen.substr(last, seen.find('\n', last) - last);
  peer.send_empty(FrameType::kCancel, 2);
  say(device, number, "second");
  wire::Ask again = get("/" + id + "/events");
  again.last_event_id = event_id;
  peer.send(3, again);
  settle();
  const std::string resumed = reply(peer, 3).body;
  EXPECT_EQ(resumed.find("first"), std::string::npos) << resumed;
  EXPECT_NE(resumed.find("{\"offset\":6,\"text\":\"second\"}"), std::string::npos) << resumed;
  EXPECT_FALSE(device.next()) << "a listener that leaves cancels nothing";
}

// Between two frames, the edge may answer a ping.
TEST_F(PromiseTest, AWebSocketMessageIsNeverInTwoFrames) {
  Peer peer = caller();
  Peer device = worker(1);
  const std::string id = promised(peer, 1);
  wire::Ask question = get("/" + id + "/events");
  question.websocket = 1;
  peer.send(2, question);
  turn();
  const uint64_t number = take(device);
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  say(device, number, std::string(200'000, '\x01'));  // six bytes each in JSON
  device.send(number, wire::Done{});
  settle();
  size_t messages = 0;
  for (auto frame = peer.next(); frame; frame = peer.next()) {
    if (frame->type == FrameType::kChunk) {
      ++messages;
      EXPECT_TRUE(frame->payload[0] == '\x81' || frame->payload[0] == '\x88');
    }
    turn();
  }
  EXPECT_GT(messages, 3U);
}

TEST_F(PromiseTest, IdleStreamsAreKeptAlive) {
  Peer peer = caller();
  const std::string id = promised(peer, 1);
  peer.send(2, get("/" + id + "/events"));
  settle();
  reply(peer, 2);
  for (int second = 0; second <= 15; ++second) {
    advance(kNsPerSec);
  }
  EXPECT_NE(reply(peer, 2).body.find(": still here"), std::string::npos);
}

TEST_F(PromiseTest, BadInputIsNamed) {
  Peer peer = caller();
  uint64_t id = 0;
  const auto status = [&](const auto& change) {
    wire::Submit message = async();
    change(message);
    submit(peer, ++id, message);
    return reply(peer, id);
  };
  EXPECT_EQ(status([](auto& m) { m.idempotency_key = "no quotes"; }).code, "invalid_request");
  EXPECT_EQ(status([](auto& m) { m.delay = "-1"; }).code, "invalid_request");
  EXPECT_EQ(status([](auto& m) { m.delay = "99999999999"; }).code, "invalid_request");
  EXPECT_EQ(status([](auto& m) { m.not_before = "tomorrow"; }).code, "invalid_request");
  EXPECT_EQ(status([](auto& m) { m.delay = "1", m.not_before = "x"; }).code, "invalid_request");
  EXPECT_EQ(status([](auto& m) { m.callback = "https://example.com/"; }).code, "invalid_request");
  for (const char* query : {"limit=0", "limit=101", "limit=x", "status=done", "after=job_1"}) {
    EXPECT_EQ(ask(peer, ++id, get("", query)).status, 400U) << query;
  }
  const std::string job = promised(peer, ++id);
  wire::Ask events = get("/" + job + "/events");
  events.last_event_id = "yesterday";
  EXPECT_EQ(ask(peer, ++id, events).status, 400U);
  for (const std::string& path : {std::string("/job_1"), "/" + job + "/nothing", std::string("//"),
                                  "x/" + job, "/" + job + "/"}) {
    EXPECT_EQ(ask(peer, ++id, get(path)).status, 404U) << path;
  }
  wire::Ask put = get("/" + job);
  put.method = "PUT";
  const Reply refused = ask(peer, ++id, put);
  EXPECT_EQ(refused.status, 405U);
  EXPECT_EQ(refused.headers, "Allow: GET, HEAD, DELETE\n");
}

TEST_F(PromiseTest, AListIsPagedNewestFirst) {
  Peer peer = caller();
  std::vector<std::string> ids;
  for (uint64_t i = 1; i <= 5; ++i) {
    ids.push_back(promised(peer, i));
  }
  std::vector<std::string> seen;
  std::string after;
  for (uint64_t page = 0; page < 3; ++page) {
    const Reply list = ask(peer, 10 + page, get("", "limit=2" + after));
    for (size_t at = 0; (at = list.body.find("\"id\":\"job_", at)) != std::string::npos; ++at) {
      seen.push_back(list.body.substr(at + 6, JobId::kBytes));
    }
    after = "&after=" + seen.back();
    EXPECT_EQ(list.body.find("\"has_more\":true") != std::string::npos, page < 2) << list.body;
  }
  EXPECT_EQ(seen, std::vector(ids.rbegin(), ids.rend()));
  const Reply none = ask(peer, 20, get("", "status=completed"));
  EXPECT_NE(none.body.find(R"("data":[])"), std::string::npos);
}

TEST_F(PromiseTest, TheEdgeHearsOfWhatIsHeldAndOfItsEnd) {
  Peer edge = connect();
  edge.send(0, wire::Hello{.version = 1, .role = 4});
  turn();
  Peer peer = caller();
  wire::Submit message = async();
  message.receipt = "what was charged";
  promised(peer, 1, message);
  const auto hold = edge.next();
  ASSERT_TRUE(hold);
  EXPECT_EQ(hold->as<wire::Hold>().receipt, "what was charged");
  Peer second = connect();
  second.send(0, wire::Hello{.version = 1, .role = 4});
  turn();
  EXPECT_FALSE(second.next());
  edge.close();
  turn();
  EXPECT_EQ(second.next()->as<wire::Hold>().receipt, "what was charged");
  Peer device = worker(1);
  settle();
  const auto job = device.next();
  EXPECT_EQ(job->as<wire::Submit>().receipt, "") << "it is no business of a worker's";
  answer(device, job->id, "done");
  const auto over = second.next();
  ASSERT_TRUE(over);
  EXPECT_EQ(over->id, hold->id);
  EXPECT_EQ(over->as<wire::Over>().receipt, "what was charged");
  EXPECT_EQ(over->as<wire::Over>().completion_tokens, 4U);
  EXPECT_EQ(over->as<wire::Over>().refund, 0U);
}

TEST_F(PromiseTest, AnEdgeThatDoesNotReadIsLeftForTheNext) {
  std::vector<Peer> edges;
  for (int i = 0; i < 2; ++i) {
    edges.push_back(connect());
    edges.back().send(0, wire::Hello{.version = 1, .role = 4});
    turn();
  }
  Peer peer = caller();
  wire::Submit message = async();
  message.receipt = "what was charged";
  promised(peer, 1, message);
  const std::string receipt(100'000, 'r');
  uint64_t number = 1000;
  for (size_t told = 0; told < EdgeLines::kMaxUnsent + (1U << 20); told += receipt.size()) {
    dispatcher_.edges().over(++number, {.receipt = receipt});
    connections_.flush();
  }
  EXPECT_EQ(dispatcher_.edges().size(), 1U);
  turn();
  EXPECT_EQ(dispatcher_.edges().size(), 1U);
  const auto hold = edges[1].next();
  ASSERT_TRUE(hold);
  EXPECT_EQ(hold->as<wire::Hold>().receipt, "what was charged");
  uint64_t last = 0;
  while (const auto over = edges[1].next()) {
    last = over->id;
    turn();
  }
  EXPECT_EQ(last, number);
  Peer third = connect();
  third.send(0, wire::Hello{.version = 1, .role = 4});
  edges[1].close();
  turn();
  EXPECT_TRUE(third.next());
}

TEST_F(PromiseTest, WithoutAStoreAPreferenceIsNotApplied) {
  // Another dispatcher, which has none.
  Dispatcher forgetful(connections_, [] { return kWallMs; });
  Intake intake(forgetful, 0);
  JobsApi api(forgetful, intake);
  const Handlers handlers{forgetful, intake, api};
  forgetful.apply(config_);
  auto [ours, theirs] = pair();
  CallerSession& session =
      callers_.emplace_back(connections_, std::move(ours), handlers, *this, credentials_);
  session.self = std::prev(callers_.end());
  ASSERT_TRUE(session.open());
  Peer peer(std::move(theirs));
  peer.send(0, wire::Hello{.version = 1, .role = 1});
  wire::Submit message = async();
  message.delay = "5";
  peer.send(1, message);
  turn();
  EXPECT_EQ(reply(peer, 1).status, 400U);
  peer.close();
  turn();
}

}  // namespace
}  // namespace penstock::queue
