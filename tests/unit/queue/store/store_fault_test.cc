// Every write, sync and truncation goes wrong once, in each of four ways.
#include <algorithm>
#include <map>
#include <thread>

#include "fault_vfs.h"
#include "store_fixture.h"

namespace penstock::queue {
namespace {

using Fault = FaultVfs::Fault;

class StoreFaultTest : public StoreFixture, public testing::WithParamInterface<Fault> {
 protected:
  StoreFaultTest() {
    FaultVfs::instance().reset();  // the first time, it is registered
    options_.vfs = FaultVfs::kName;
    options_.retry_ms = 5;
  }
  ~StoreFaultTest() override {
    store_.reset();
    FaultVfs::instance().reset();
  }

  struct Story {
    std::vector<JobId> promised;               // was told
    std::map<std::string, std::string> ended;  // was told: id, result
    std::vector<JobId> refused;
  };

  // Jobs come, some end, one has a large result, one is tried again. Whatever was told is noted.
  void tell(Story& story) {
    std::vector<JobId> ids;
    for (int i = 0; i < 6; ++i) {
      const JobRecord sent = job();
      ids.push_back(sent.id);
      store_->promise(sent, std::string(3000, 'b'), [&story, id = sent.id](PromiseOutcome outcome) {
        (outcome == PromiseOutcome::kStored ? story.promised : story.refused).push_back(id);
      });
      if (i % 2 == 0) {
        wait_a_moment();
      }
    }
    store_->attempt(ids[0], 1, "engine_failed", "it failed");
    for (int i = 0; i < 4; ++i) {
      const std::string text = i == 3 ? std::string(80'000, 'r') : "result " + std::to_string(i);
      const JobId id = ids[static_cast<size_t>(i)];
      store_->finish(end(id), 0, text, [&story, id, text](const JobEnd&) {
        if (std::find(story.promised.begin(), story.promised.end(), id) != story.promised.end()) {
          story.ended[std::string(id.view())] = text;  // one that was refused has no end
        }
      });
      wait_a_moment();
    }
  }

  // Until nothing is left to be told, or the store is stuck on a disk that fails.
  void wait_a_moment() {
    for (int tries = 0; store_->pending() > 0 && tries < 40 && store_->health(); ++tries) {
      pollfd ready{store_->event_fd(), POLLIN, 0};
      ::poll(&ready, 1, 50);
      store_->tell_done();
    }
    store_->tell_done();
  }

  void expect_kept(const Story& story, const std::vector<JobRecord>& alive, int at) {
    std::map<std::string, JobRecord> by_id;
    for (const JobRecord& each : alive) {
      EXPECT_TRUE(by_id.emplace(each.id.view(), each).second) << "twice";
    }
    for (const JobId& id : story.promised) {
      const auto found = find(id);
      ASSERT_TRUE(found) << "lost, by the fault at " << at;
      if (!has_ended(found->status)) {
        EXPECT_EQ(by_id.count(std::string(id.view())), 1U);
        EXPECT_EQ(body(id), std::string(3000, 'b')) << "half a job, by the fault at " << at;
      }
    }
    for (const auto& [id, text] : story.ended) {
      const auto found = find(*parse_job_id(id));
      ASSERT_TRUE(found && found->status == JobStatus::kCompleted) << "an end lost at " << at;
      if (found->result_in_file) {
        EXPECT_EQ(std::filesystem::file_size(store_->result_path(found->id)), text.size());
      } else {
        EXPECT_EQ(result(found->id), text);
      }
    }
  }
};

TEST_P(StoreFaultTest, WhatWasToldIsThereAfterOpeningAnew) {
  FaultVfs& vfs = FaultVfs::instance();
  int at = 0;
  for (bool happened = true; happened; ++at) {
    vfs.reset();
    options_.folder = folder_ + "/" + std::to_string(at);
    vfs.arm(GetParam(), at);
    Story story;
    if (open()) {
      tell(story);
    }
    happened = vfs.happened();
    store_.reset();
    if (GetParam() == Fault::kDrop) {
      vfs.power_off();
    }
    vfs.reset();
    const auto alive = reopen();
    ASSERT_TRUE(store_) << "it cannot be opened after the fault at " << at;
    expect_kept(story, alive, at);
    if (GetParam() != Fault::kCrash && story.promised.size() + story.refused.size() == 6) {
      for (const JobId& id : story.refused) {
        EXPECT_FALSE(find(id)) << "refused, and there all the same: the fault at " << at;
      }
    }
    store_.reset();
    std::filesystem::remove_all(options_.folder);
  }
  EXPECT_GT(at, 30) << "too few places were tried";
  RecordProperty("places", at);
}

INSTANTIATE_TEST_SUITE_P(Each, StoreFaultTest,
                         testing::Values(Fault::kFail, Fault::kShort, Fault::kDrop, Fault::kCrash),
                         [](const auto& each) {
                           return each.param == Fault::kFail    ? "Fails"
                                  : each.param == Fault::kShort ? "IsCutShort"
                                  : each.param == Fault::kDrop  ? "IsDropped"
                                                                : "ThePowerFails";
                         });

TEST_F(StoreFaultTest, AWriteErrorStopsPromisesLoudlyAndPasses) {
  const Status opened = open();
  ASSERT_TRUE(opened) << opened.error().message;
  const JobRecord first = job();
  ASSERT_EQ(promise(first), PromiseOutcome::kStored);
  FaultVfs::instance().arm(Fault::kFail, 0);
  EXPECT_EQ(promise(job()), PromiseOutcome::kBroken);
  EXPECT_FALSE(store_->health());
  EXPECT_NE(store_->health().error().message.find("failed"), std::string::npos);
  EXPECT_GE(store_->figures().write_errors, 1U);
  EXPECT_EQ(promise(job()), PromiseOutcome::kStored) << "the disk is well again";
  EXPECT_TRUE(store_->health());
}

TEST_F(StoreFaultTest, WhatAFlushHasDroppedIsWrittenAgainBeforeItIsTold) {
  ASSERT_TRUE(open());
  const JobRecord sent = job();
  ASSERT_EQ(promise(sent), PromiseOutcome::kStored);
  FaultVfs::instance().arm(Fault::kDrop, 0, true);
  bool told = false;
  store_->finish(end(sent.id), 0, "result", [&](const JobEnd&) { told = true; });
  settle();
  ASSERT_TRUE(told);
  EXPECT_TRUE(FaultVfs::instance().happened());
  EXPECT_GE(store_->figures().write_errors, 1U);
  EXPECT_TRUE(store_->health());
  FaultVfs::instance().crash();
  store_.reset();
  FaultVfs::instance().reset();
  EXPECT_TRUE(reopen().empty()) << "it has ended";
  EXPECT_EQ(result(sent.id), "result");
}

TEST_F(StoreFaultTest, ALogThatNobodyKnowsToBeOnDiskIsNotMovedIntoTheDatabase) {
  options_.retry_ms = 60'000;
  ASSERT_TRUE(open());
  constexpr int kOthers = 60;  // the log has begun anew: not every page is in it
  for (int i = 0; i < kOthers; ++i) {
    promise(job(), std::string(3000, 'b'));
  }
  const JobRecord sent = job();
  ASSERT_EQ(promise(sent), PromiseOutcome::kStored);
  constexpr int kTries = 4;  // the flush, writing it again, and that twice as the store stops
  FaultVfs::instance().arm(Fault::kDrop, 0, true, kTries);
  bool told = false;
  store_->finish(end(sent.id), 0, "result", [&](const JobEnd&) { told = true; });
  while (store_->figures().write_errors < 2) {
    std::this_thread::yield();
  }
  store_.reset();
  EXPECT_TRUE(FaultVfs::instance().happened());
  EXPECT_FALSE(told);
  FaultVfs::instance().power_off();
  FaultVfs::instance().reset();
  EXPECT_EQ(reopen().size(), 1U + kOthers) << "it runs once more";
  EXPECT_TRUE(store_->notices().empty());
  EXPECT_TRUE(result(sent.id).starts_with("error")) << "half of its end is there";
}

TEST_F(StoreFaultTest, WhileTheDiskFailsAPromiseIsRefusedAndWhoAsksWaits) {
  options_.retry_ms = 60'000;
  ASSERT_TRUE(open());
  const JobRecord kept = job();
  ASSERT_EQ(promise(kept), PromiseOutcome::kStored);
  FaultVfs::instance().arm(Fault::kDrop, 0, true, 2);
  const JobRecord sent = job();
  std::optional<PromiseOutcome> outcome;
  store_->promise(sent, "SUBMIT", [&](PromiseOutcome told) { outcome = told; });
  while (!outcome) {
    pollfd ready{store_->event_fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&ready, 1, 10'000), 1) << "the store says nothing";
    store_->tell_done();
  }
  EXPECT_EQ(*outcome, PromiseOutcome::kBroken);
  EXPECT_FALSE(store_->health());
  bool told = false;
  store_->find(kept.id, [&](const std::optional<JobRecord>&) { told = true; });
  store_.reset();  // the last try succeeds
  EXPECT_FALSE(told) << "nobody knew what was on disk";
  FaultVfs::instance().power_off();
  FaultVfs::instance().reset();
  const auto jobs = reopen();
  ASSERT_EQ(jobs.size(), 1U) << "what was refused is not there";
  EXPECT_EQ(jobs[0].id.view(), kept.id.view());
}

TEST_F(StoreFaultTest, APromiseWhoseFlushWasDroppedIsMadeOnceItIsWrittenAgain) {
  ASSERT_TRUE(open());
  FaultVfs::instance().arm(Fault::kDrop, 0, true);
  const JobRecord sent = job();
  EXPECT_EQ(promise(sent), PromiseOutcome::kStored);
  FaultVfs::instance().crash();
  store_.reset();
  FaultVfs::instance().reset();
  EXPECT_EQ(reopen().size(), 1U);
}

TEST_F(StoreFaultTest, AnEndThatCannotBeWrittenIsTriedUntilItCan) {
  ASSERT_TRUE(open());
  const JobRecord sent = job();
  promise(sent);
  FaultVfs::instance().arm(Fault::kFail, 0);
  bool told = false;
  store_->finish(end(sent.id), 0, "result", [&](const JobEnd&) { told = true; });
  settle();
  EXPECT_TRUE(told);
  EXPECT_EQ(result(sent.id), "result");
}

TEST_F(StoreFaultTest, AListThatWasReadBesideAWriteThatFailedNamesEachJobOnce) {
  options_.retry_ms = 60'000;  // so that it is tried again when something else is asked
  ASSERT_TRUE(open());
  const JobRecord sent = job();
  promise(sent);
  FaultVfs::instance().arm(Fault::kFail, 0);
  store_->finish(end(sent.id), 0, "result", [](const JobEnd&) {});
  while (store_->health()) {
    std::this_thread::yield();
  }
  FaultVfs::instance().arm(Fault::kFail, 0);
  std::optional<size_t> listed;
  store_->list({}, [&](const JobPage& page) { listed = page.jobs.size(); });
  while (!listed) {
    pollfd ready{store_->event_fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&ready, 1, 10'000), 1) << "the store says nothing";
    store_->tell_done();
  }
  EXPECT_TRUE(FaultVfs::instance().happened());
  EXPECT_EQ(listed, 1U);
  EXPECT_EQ(result(sent.id), "result");
}

}  // namespace
}  // namespace penstock::queue
