// What results may take, in memory and on disk, and what happens past it.
#include <cerrno>

#include "promise_fixture.h"

namespace penstock::queue {
namespace {

using Call = FaultFiles::Call;

class BoundedStateTest : public PromiseTest {
 protected:
  // As it writes the end of the job that runs.
  void fail_the_disk(Peer& device) {
    settle();
    files_.fail(Call::kWrite, ENOSPC);
    end_with_a_file(device);
    while (store_->disk() == Disk::kWell) {
      pollfd ready{store_->event_fd(), POLLIN, 0};
      ::poll(&ready, 1, 1);
    }
    device.send(0, wire::Take{1});
    turn();
  }
};

TEST_F(BoundedStateTest, AnAnswerLargerThanWhatIsKeptFailsItsJobAndStopsItsWork) {
  config_.limits.max_result_bytes = 100'000;
  apply();
  Peer peer = caller();
  Peer device = worker(1);
  const std::string id = promised(peer, 1);
  const uint64_t number = take(device);
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  say(device, number, std::string(100'000, 'x'));
  EXPECT_FALSE(device.next()) << "so much is kept";
  say(device, number, "x");
  const auto cancelled = device.next();
  ASSERT_TRUE(cancelled);
  EXPECT_EQ(cancelled->type, wire::FrameType::kCancel);
  settle();
  const Reply job = get_job(peer, 2, id);
  EXPECT_NE(job.body.find(R"("status":"failed")"), std::string::npos) << job.body;
  EXPECT_NE(job.body.find("limits.max_result"), std::string::npos) << job.body;
  EXPECT_FALSE(std::filesystem::exists(store_->result_path(*parse_job_id(id))));
}

TEST_F(BoundedStateTest, WhoWaitsForALargeAnswerGetsAllOfIt) {
  config_.limits.max_result_bytes = 100'000;
  apply();
  Peer peer = caller();
  Peer device = worker(1);
  submit(peer, 1, post());
  const uint64_t number = take(device);
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  say(device, number, std::string(150'000, 'x'));
  device.send(number, wire::Done{});
  settle();
  EXPECT_EQ(reply(peer, 1).body.size(), 150'000U);
}

TEST_F(BoundedStateTest, WhileTheDiskFailsNoPromisedJobBeginsAndWhoWaitsIsServed) {
  Peer peer = caller();
  promised(peer, 1);
  const std::string id = promised(peer, 2);
  Peer device = worker(1);
  fail_the_disk(device);
  EXPECT_FALSE(device.next()) << "its end could not be written";
  peer.send(3, post("waits"));
  turn();
  const auto given = device.next();
  ASSERT_TRUE(given);
  EXPECT_EQ(given->as<wire::Submit>().body, "waits");
  files_.heal();
  answer(device, given->id, "at once");
  EXPECT_EQ(reply(peer, 3).body, "at once");
  advance(Dispatcher::kPostponeNs);
  settle();
  answer(device, take(device), "later");
  EXPECT_EQ(get_job(peer, 4, id, "/result").body, "later");
  const Reply job = get_job(peer, 5, id);
  EXPECT_NE(job.body.find(R"("attempts":0)"), std::string::npos) << job.body;
}

TEST_F(BoundedStateTest, WhatWaitsForTheDiskIsBoundedAndItsJobBeginsAnew) {
  config_.limits.max_unwritten_bytes = 1 << 20;
  apply();
  Peer peer = caller();
  Peer device = worker(1);
  const std::string id = promised(peer, 1);
  const uint64_t number = take(device);
  files_.fail(Call::kWrite, ENOSPC);
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  for (int i = 0; i < 10; ++i) {
    say(device, number, std::string(200'000, 'x'));
  }
  EXPECT_LE(store_->pending_bytes(), (1U << 20) + 200'000);
  auto cancelled = device.next();
  while (cancelled && cancelled->type == wire::FrameType::kWindow) {
    cancelled = device.next();
  }
  ASSERT_TRUE(cancelled);
  EXPECT_EQ(cancelled->type, wire::FrameType::kCancel);
  device.send(number, wire::Failed{.status = 499, .code = "cancelled"});
  device.send(0, wire::Take{1});
  files_.heal();
  settle();
  advance(Dispatcher::kPostponeNs);
  settle();
  answer(device, take(device), "again");
  EXPECT_EQ(get_job(peer, 2, id, "/result").body, "again");
}

TEST_F(BoundedStateTest, AJobWhoseResultCannotBeStoredEndsWhileItRuns) {
  Peer peer = caller();
  Peer device = worker(1);
  const std::string id = promised(peer, 1);
  const uint64_t number = take(device);
  store_->on_lost_result(*parse_job_id(id), "a bad block");
  turn();
  const auto cancelled = device.next();
  ASSERT_TRUE(cancelled);
  EXPECT_EQ(cancelled->type, wire::FrameType::kCancel);
  EXPECT_EQ(cancelled->id, number);
  settle();
  const Reply job = get_job(peer, 2, id);
  EXPECT_NE(job.body.find(R"("status":"failed")"), std::string::npos) << job.body;
  EXPECT_NE(job.body.find("could not be stored"), std::string::npos) << job.body;
  EXPECT_EQ(job.body.find("bad block"), std::string::npos) << "that is for the log";
}

TEST_F(BoundedStateTest, WhoTakesTooMuchRoomIsToldAQuotaIsExceeded) {
  store_.reset();
  store_ = *Store::open({.folder = folder_ + "/state", .max_share_bytes = 60'000});
  dispatcher_.use(*store_);
  Peer peer = caller();
  const std::string body(50'000, 'x');
  promised(peer, 1, async(body));
  peer.send(2, async(body));
  settle();
  const auto refused = peer.next();
  ASSERT_TRUE(refused);
  const auto failed = refused->as<wire::Failed>();
  EXPECT_EQ(failed.status, 429U);
  EXPECT_EQ(failed.code, "quota_exceeded");
  EXPECT_GT(failed.retry_after_s, 0U);
  wire::Submit others = async(body);
  others.owner = "Bearer sk-other";
  promised(peer, 3, others);
}

TEST_F(BoundedStateTest, ARefusedPromiseLeavesNoFileBehind) {
  Peer peer = caller();
  Peer device = worker(1);
  store_.reset();
  store_ = *Store::open({.folder = folder_ + "/state", .max_bytes = 1});
  dispatcher_.use(*store_);
  peer.send(1, async());
  turn();
  const uint64_t number = take(device);  // a free slot has it before it is written
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  say(device, number, std::string(100'000, 'x'));
  settle();
  EXPECT_EQ(reply(peer, 1).status, 503U);
  EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/state/results"));
}

TEST_F(BoundedStateTest, AListHasTheLivingAndTheEndedInOrder) {
  Peer peer = caller();
  std::vector<std::string> ids;
  for (uint64_t i = 1; i <= 6; ++i) {
    ids.push_back(promised(peer, i));
  }
  Peer device = worker(1);
  settle();
  answer(device, take(device), "first");
  answer(device, take(device), "second");
  std::string listed;
  std::string after;
  for (uint64_t i = 10; i < 14; ++i) {
    const Reply page = ask(peer, i, get("", "limit=2" + after));
    for (size_t at = 0; (at = page.body.find("\"id\":\"job_", at)) != std::string::npos; at += 6) {
      listed += page.body.substr(at + 6, JobId::kBytes) + " ";
    }
    if (page.body.find("\"has_more\":true") == std::string::npos) {
      break;
    }
    const size_t last = page.body.find("\"last_id\":\"") + 11;
    after = "&after=" + page.body.substr(last, JobId::kBytes);
    paths_.push_back("limit=2" + after);
  }
  std::string expected;
  for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
    expected += *id + " ";
  }
  EXPECT_EQ(listed, expected);
  const Reply running = ask(peer, 20, get("", "status=processing"));
  EXPECT_NE(running.body.find(ids[2]), std::string::npos) << running.body;
  EXPECT_EQ(running.body.find(ids[3]), std::string::npos) << running.body;
  const Reply done = ask(peer, 21, get("", "status=completed"));
  EXPECT_EQ(done.body.find(ids[2]), std::string::npos) << done.body;
  EXPECT_NE(done.body.find(ids[1]), std::string::npos) << done.body;
}

}  // namespace
}  // namespace penstock::queue
