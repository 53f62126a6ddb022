// The ledger: each end is in it once, and what a kill has left between is put right.
#include <filesystem>
#include <fstream>
#include <thread>

#include "fault_vfs.h"
#include "store_fixture.h"
#include "worker/queue/store/usage_file.h"

namespace penstock::queue {
namespace {

UsageRow row_of(int64_t hour, uint64_t owner, int64_t tokens, const std::string& model = "demo") {
  UsageRow row{.key = {hour, owner, "default", model}, .counts = {}};
  row.counts[kCompletedJobs] = row.counts[kRequests] = 1;
  row.counts[kCompletionTokens] = tokens;
  return row;
}

class UsageTest : public StoreFixture {
 protected:
  static constexpr int64_t kHour = kNowMs / kHourMs;

  UsageTest() { EXPECT_TRUE(open()); }

  std::vector<UsageRow> all(UsageQuery query = {}) {
    std::vector<UsageRow> rows;
    for (bool more = true; more;) {
      store_->usage(query, [&](const UsagePage& page) {
        rows.insert(rows.end(), page.rows.begin(), page.rows.end());
        more = page.more;
        query.after = page.last;
      });
      settle();
    }
    return rows;
  }
  void add(std::vector<UsageRow> rows, uint64_t mark = 1) {
    store_->add_usage(std::move(rows), mark, [] {});
    settle();
  }
  std::string file() const { return options_.folder + "/usage"; }
  UsageFile open_file(uint64_t mark, std::vector<UsageRow>& left) {
    left.clear();
    auto opened = UsageFile::open(file(), mark, left);
    EXPECT_TRUE(opened) << opened.error().message;
    return opened ? *std::move(opened) : UsageFile();
  }
};

TEST_F(UsageTest, AnEndIsCountedWithItAndOnce) {
  const JobRecord sent = job();
  promise(sent);
  JobEnd over = end(sent.id);
  over.prompt_tokens = 3;
  over.completion_tokens = 4;
  over.device_ns = 1'000'001;
  finish(over, "x");
  finish(over, "x");
  reopen();
  const auto rows = all();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].key, (UsageKey{kHour, sent.owner.lo, "default", "demo"}));
  EXPECT_EQ(rows[0].counts[kCompletedJobs], 1);
  EXPECT_EQ(rows[0].counts[kRequests], 1);
  EXPECT_EQ(rows[0].counts[kPromptTokens], 3);
  EXPECT_EQ(rows[0].counts[kCompletionTokens], 4);
  EXPECT_EQ(rows[0].counts[kGpuMs], 2) << "rounded up, as limits do";
}

TEST_F(UsageTest, WhatFailedAndWhatWasPaidBeforeChargesNothing) {
  const JobRecord failed = job();
  promise(failed);
  JobEnd over = end(failed.id, JobStatus::kFailed);
  over.completion_tokens = 4;
  finish(over, "");
  JobRecord again = job();
  again.paid = true;
  promise(again);
  over = end(again.id);
  over.completion_tokens = 4;
  finish(over, "x");
  const auto rows = all();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].counts[kCompletedJobs], 1);
  EXPECT_EQ(rows[0].counts[kFailedJobs], 1);
  EXPECT_EQ(rows[0].counts[kRequests], 0);
  EXPECT_EQ(rows[0].counts[kCompletionTokens], 0);
}

TEST_F(UsageTest, RowsOfOneKeyAddUpAndPagesFollowEachOther) {
  std::vector<UsageRow> rows;
  for (uint64_t owner = 1; owner <= 5; ++owner) {
    rows.push_back(row_of(kHour, owner, 1));
    rows.push_back(row_of(kHour + 1, owner, 1, "other"));
  }
  add(rows);
  add({row_of(kHour, 1, 5)});
  const auto found = all({.limit = 3});
  ASSERT_EQ(found.size(), 10U);
  EXPECT_EQ(found[0].counts[kCompletionTokens], 6);
  EXPECT_EQ(all({.since = kHour + 1}).size(), 5U);
  EXPECT_EQ(all({.until = kHour + 1}).size(), 5U);
  EXPECT_EQ(all({.model = "other"}).size(), 5U);
  EXPECT_EQ(all({.owners = {2, 4}, .by_owner = true}).size(), 4U);
  EXPECT_TRUE(all({.by_owner = true}).empty());
}

TEST_F(UsageTest, WhatIsOldAndWhatIsTooMuchGoes) {
  store_->set_usage_bounds({.keep_hours = 10, .rows = 3});
  add({row_of(kHour - 20, 1, 1), row_of(kHour, 1, 1)});
  store_->sweep(kNowMs);
  settle();
  EXPECT_EQ(all().size(), 1U);
  add({row_of(kHour - 1, 1, 1), row_of(kHour - 1, 2, 1), row_of(kHour, 2, 1)});
  store_->sweep(kNowMs);
  settle();
  const auto rows = all();
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].key.hour, kHour);
}

class UsageFaultTest : public UsageTest {
 protected:
  UsageFaultTest() {
    FaultVfs::instance().reset();
    store_.reset();
    options_.vfs = FaultVfs::kName;
    options_.retry_ms = 5;
    EXPECT_TRUE(open());
  }
  ~UsageFaultTest() override {
    store_.reset();
    FaultVfs::instance().reset();
  }
};

TEST_F(UsageFaultTest, WhatIsTooMuchGoesAlthoughASweepWasRolledBack) {
  store_->set_usage_bounds({.keep_hours = 10, .rows = 3});
  add({row_of(kHour - 1, 1, 1), row_of(kHour - 1, 2, 1), row_of(kHour, 1, 1), row_of(kHour, 2, 1)});
  FaultVfs::instance().arm(FaultVfs::Fault::kFail, 0);
  store_->sweep(kNowMs);
  settle();
  EXPECT_TRUE(FaultVfs::instance().happened());
  EXPECT_EQ(all().size(), 2U);
}

TEST_F(UsageFaultTest, AnHourIsOpenAsLongAsAnEndOfItIsNotOnDisk) {
  const JobRecord sent = job();
  promise(sent);
  EXPECT_EQ(store_->unwritten_hour(), INT64_MAX);
  FaultVfs::instance().arm(FaultVfs::Fault::kFail, 0, false, 1'000'000);
  store_->finish(end(sent.id), 0, "x", [](const JobEnd&) {});
  while (store_->health()) {
    std::this_thread::yield();
  }
  bool looked = false;
  store_->usage({}, [&](const UsagePage& page) {
    looked = true;
    EXPECT_TRUE(page.rows.empty());
    EXPECT_EQ(store_->unwritten_hour(), kHour);
  });
  while (!looked) {
    store_->tell_done();
  }
  FaultVfs::instance().arm(FaultVfs::Fault::kNone, 0);
  settle();
  EXPECT_EQ(store_->unwritten_hour(), INT64_MAX);
  EXPECT_EQ(all().size(), 1U);
}

// Ends that are written together are counted together.
TEST_F(UsageFaultTest, EndsThatWereRolledBackAreCountedOnce) {
  std::vector<JobRecord> sent(20);
  for (JobRecord& each : sent) {
    promise(each = job());
  }
  FaultVfs::instance().arm(FaultVfs::Fault::kFail, 3, false, 3);
  for (const JobRecord& each : sent) {
    store_->finish(end(each.id), 0, "x", [](const JobEnd&) {});
  }
  settle();
  EXPECT_TRUE(FaultVfs::instance().happened());
  const auto rows = all();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].counts[kCompletedJobs], 20);
}

TEST_F(UsageTest, AnEndThatFailsByItselfIsCountedAsItEnded) {
  options_.file_tries = 3;
  options_.retry_ms = 1;
  store_.reset();
  ASSERT_TRUE(open());
  std::vector<JobRecord> sent(20);
  for (JobRecord& each : sent) {
    promise(each = job());
  }
  std::filesystem::create_directory(store_->result_path(sent[10].id));  // it is in the way
  const std::string large(Store::kInlineBytes + 1, 'x');
  for (const JobRecord& each : sent) {
    store_->finish(end(each.id), 0, large, [](const JobEnd&) {});
  }
  settle();
  const auto rows = all();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].counts[kCompletedJobs], 19);
  EXPECT_EQ(rows[0].counts[kFailedJobs], 1);
}

TEST_F(UsageTest, WhatWasNotWrittenBeforeAKillIsThereAfterIt) {
  std::vector<UsageRow> left;
  {
    UsageFile usage = open_file(store_->usage_mark(), left);
    EXPECT_TRUE(left.empty());
    EXPECT_TRUE(usage.add(row_of(kHour, 1, 1)));
    add({row_of(kHour, 1, 1)}, usage.next());
    EXPECT_TRUE(usage.add(row_of(kHour, 2, 7)));
  }
  reopen();
  const UsageFile again = open_file(store_->usage_mark(), left);
  ASSERT_EQ(left.size(), 1U) << "what is in the ledger is not added again";
  EXPECT_EQ(left[0].key, row_of(kHour, 2, 7).key);
  EXPECT_EQ(left[0].counts, row_of(kHour, 2, 7).counts);
  EXPECT_EQ(again.next(), store_->usage_mark() + 1);
}

TEST_F(UsageTest, AFullFileTakesNoMoreUntilItIsWritten) {
  std::vector<UsageRow> left;
  UsageFile usage = open_file(0, left);
  for (size_t i = 0; i < UsageFile::kEntries; ++i) {
    ASSERT_TRUE(usage.add(row_of(kHour, i, 1)));
  }
  EXPECT_FALSE(usage.add(row_of(kHour, 1, 1)));
  usage.forget(usage.next());
  EXPECT_TRUE(usage.add(row_of(kHour, 1, 1)));
  EXPECT_FALSE(usage.add(row_of(kHour, 1, 1, std::string(200, 'm')))) << "a name without end";
}

TEST_F(UsageTest, AFileOfNoOnesIsPassedOver) {
  std::vector<UsageRow> left;
  { UsageFile usage = open_file(0, left); }
  const auto size = std::filesystem::file_size(file());
  std::fstream out(file(), std::ios::in | std::ios::out | std::ios::binary);
  for (size_t at = 256; at < size; at += 256) {  // numbers that may be, and nothing else sound
    const uint64_t number = at / 256;
    out.seekp(static_cast<std::streamoff>(at));
    out.write(reinterpret_cast<const char*>(&number), sizeof number);
    out << std::string(248, '\xFF');
  }
  out.close();
  const UsageFile usage = open_file(0, left);
  EXPECT_TRUE(left.empty());
}

}  // namespace
}  // namespace penstock::queue
