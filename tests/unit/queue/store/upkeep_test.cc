// Copies of a store that is used, what is purged, and the room that it gives back.
#include <fstream>
#include <iterator>

#include "store_fixture.h"
#include "worker/queue/care/state_check.h"
#include "worker/queue/store/state_copy.h"

namespace penstock::queue {
namespace {

namespace fs = std::filesystem;

class UpkeepTest : public StoreFixture {
 protected:
  UpkeepTest() { EXPECT_TRUE(open()); }

  std::string bytes_of(const std::string& name) const {
    std::ifstream file(options_.folder + "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  bool is_on_disk(const std::string& text) const {
    return bytes_of("jobs.db").find(text) != std::string::npos ||
           bytes_of("jobs.db-wal").find(text) != std::string::npos;
  }
  Status back_up() {
    std::optional<Status> done;
    store_->back_up([&](Status told) { done = std::move(told); });
    while (!done) {
      settle();
    }
    return *done;
  }
  std::string copy() const { return StateCopy::folder_of(options_.folder); }
};

TEST_F(UpkeepTest, ACopyHasWhatIsWrittenWhileItIsMade) {
  const JobRecord first = job();
  promise(first);
  finish(end(first.id), std::string(100'000, 'r'));
  constexpr size_t kMore = 30;  // so that it takes several steps
  for (size_t i = 0; i < kMore; ++i) {
    promise(job(), std::string(100'000, 's'));
  }
  std::optional<Status> done;
  store_->back_up([&](Status told) { done = std::move(told); });
  const JobRecord meanwhile = job();
  promise(meanwhile, std::string(50'000, 's'));
  while (!done) {
    settle();
  }
  ASSERT_TRUE(*done) << done->error().message;
  EXPECT_EQ(fs::file_size(copy() + "/results/" + std::string(first.id.view())), 100'000U);
  EXPECT_TRUE(fs::exists(copy() + "/secret"));
  const auto findings = check_state(copy());
  ASSERT_TRUE(findings) << findings.error().message;
  for (const Finding& each : *findings) {
    EXPECT_NE(each.level, Finding::Level::kBad) << line_of(each);
  }
  size_t jobs = 0;
  EXPECT_TRUE(export_state(copy(), [&](std::string_view) { return ++jobs > 0; }));
  EXPECT_EQ(jobs, kMore + 2);
  store_->forget_backup();
  settle();
  EXPECT_FALSE(fs::exists(copy()));
}

TEST_F(UpkeepTest, AResultThatIsDroppedMeanwhileIsInTheCopy) {
  const JobRecord large = job();
  promise(large);
  finish(end(large.id), std::string(100'000, 'r'));
  std::optional<Status> done;
  store_->back_up([&](Status told) { done = std::move(told); });
  store_->drop(large.id, [](bool dropped) { EXPECT_TRUE(dropped); });
  while (!done) {
    settle();
  }
  ASSERT_TRUE(*done) << done->error().message;
  settle();
  const auto findings = check_state(copy());
  ASSERT_TRUE(findings) << findings.error().message;
  EXPECT_NE(level_of(*findings), Finding::Level::kBad);
  EXPECT_FALSE(fs::exists(store_->result_path(large.id))) << "it goes once the copy is made";
}

TEST_F(UpkeepTest, ACopyOfAStartBeforeIsGone) {
  ASSERT_TRUE(back_up());
  reopen();
  EXPECT_FALSE(fs::exists(copy()));
}

TEST_F(UpkeepTest, WhatIsPurgedIsNowhereOnDisk) {
  const JobRecord other = job("bob");
  promise(other, "THE OTHER");
  for (const size_t times : {1U, 3000U}) {  // in a page, and in pages of its own
    const JobRecord mine = job();
    std::string body, answer;
    for (size_t i = 0; i < times; ++i) {
      body += "KORALLENRIFF";
      answer += "SEEGRASWIESE";
    }
    promise(mine, body);
    finish(end(mine.id), answer.substr(0, 30'000));
    ASSERT_TRUE(is_on_disk("KORALLENRIFF"));
    bool purged = false;
    store_->purge(mine.id, [&](bool done) { purged = done; });
    settle();
    EXPECT_TRUE(purged);
    EXPECT_FALSE(is_on_disk("KORALLENRIFF")) << times;
    EXPECT_FALSE(is_on_disk("SEEGRASWIESE")) << times;
    EXPECT_FALSE(find(mine.id));
  }
  EXPECT_EQ(body(other.id), "THE OTHER");
  EXPECT_EQ(reopen().size(), 1U);
}

TEST_F(UpkeepTest, WhatAStopLeftOfAPurgeIsWipedAfterIt) {
  const JobRecord mine = job();
  std::string body;
  for (int i = 0; i < 300'000; ++i) {  // of more than one step
    body += "KORALLENRIFF";
  }
  promise(mine, body);
  finish(end(mine.id), "");
  store_->purge(mine.id, [](bool) {});
  store_.reset();
  ASSERT_TRUE(is_on_disk("KORALLENRIFF")) << "or there was nothing to stop";
  reopen();
  settle();
  EXPECT_FALSE(is_on_disk("KORALLENRIFF"));
  EXPECT_FALSE(fs::exists(options_.folder + "/wipe"));
  store_->purge(mine.id, [](bool purged) { EXPECT_FALSE(purged); });
  settle();
}

TEST_F(UpkeepTest, OnlyWhatIsOverIsPurged) {
  const JobRecord alive = job();
  promise(alive);
  bool purged = true;
  store_->purge(alive.id, [&](bool done) { purged = done; });
  settle();
  EXPECT_FALSE(purged);
  EXPECT_TRUE(find(alive.id));
}

TEST_F(UpkeepTest, TheDiskIsFreeAgainAfterAFlood) {
  std::vector<JobId> ids;
  for (int i = 0; i < 60; ++i) {
    const JobRecord each = job();
    promise(each, std::string(300'000, 'b'));
    ids.push_back(each.id);
  }
  const uint64_t full = store_->figures().disk_bytes;
  for (const JobId& id : ids) {
    finish(end(id), "");
  }
  store_->sweep(kNowMs + 120'000);
  settle();
  EXPECT_LT(store_->figures().disk_bytes, full / 2);
}

}  // namespace
}  // namespace penstock::queue
