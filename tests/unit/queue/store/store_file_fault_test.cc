// What fails by itself fails alone; a full disk stops promises, and not the ends of what was
// promised.
#include <sqlite3.h>

#include <fstream>
#include <map>

#include "fault_files.h"
#include "store_fixture.h"

namespace penstock::queue {
namespace {

using Call = FaultFiles::Call;

class StoreFileFaultTest : public StoreFixture {
 protected:
  static constexpr size_t kLarge = 2 * Store::kInlineBytes;

  StoreFileFaultTest() {
    options_.files = &files_;
    options_.retry_ms = 2;
    options_.file_tries = 3;
  }
  ~StoreFileFaultTest() override { store_.reset(); }  // before what it writes by

  bool begin() {
    const Status opened = open();
    EXPECT_TRUE(opened) << opened.error().message;
    if (opened) {
      EXPECT_TRUE(store_->recover([](JobRecord&&) {}, [](const std::string&) {}));
      listen();
    }
    return static_cast<bool>(opened);
  }
  void listen() {
    store_->on_lost_result = [this](const JobId& id, const std::string& why) {
      lost_[std::string(id.view())] = why;
    };
  }
  JobRecord promised() {
    const JobRecord sent = job();
    EXPECT_EQ(promise(sent), PromiseOutcome::kStored);
    return sent;
  }
  // How it has ended, as was told.
  JobEnd end_of(const JobId& id, const std::string& rest, uint64_t offset = 0) {
    JobEnd told;
    store_->finish(end(id), offset, rest, [&](const JobEnd& end) { told = end; });
    settle();
    return told;
  }
  // Until something is told, or the store has had time for it.
  void await(const std::function<bool()>& done) {
    for (int i = 0; i < 5000 && !done(); ++i) {
      pollfd ready{store_->event_fd(), POLLIN, 0};
      ::poll(&ready, 1, 2);
      store_->tell_done();
    }
    EXPECT_TRUE(done());
  }

  FaultFiles files_;
  std::map<std::string, std::string> lost_;  // why, by id
};

TEST_F(StoreFileFaultTest, AResultWhoseFileWasLostFailsItsJobAloneAndIsNotMadeUp) {
  ASSERT_TRUE(begin());
  const JobRecord sent = promised();
  store_->append_result(sent.id, 0, std::string(kLarge, 'r'));
  settle();
  std::filesystem::remove(store_->result_path(sent.id));
  const JobEnd told = end_of(sent.id, "the rest", kLarge);
  EXPECT_EQ(told.status, JobStatus::kFailed);
  EXPECT_EQ(told.error, "Its result could not be stored.");
  const auto found = find(sent.id);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->status, JobStatus::kFailed);
  EXPECT_EQ(found->end.error_code, "engine_failed");
  EXPECT_FALSE(found->result_in_file);
  EXPECT_FALSE(std::filesystem::exists(store_->result_path(sent.id)));
  EXPECT_TRUE(store_->health());
  EXPECT_EQ(store_->figures().lost_results, 1U);
  ASSERT_EQ(lost_.size(), 1U);
  EXPECT_NE(lost_.begin()->second.find("No such file"), std::string::npos);
  EXPECT_EQ(promise(job()), PromiseOutcome::kStored);
}

TEST_F(StoreFileFaultTest, AnythingInItsWayFailsItsJobAlone) {
  ASSERT_TRUE(begin());
  const JobRecord sent = promised();
  const JobRecord other = promised();
  std::filesystem::create_directory(store_->result_path(sent.id));
  JobEnd told;
  bool other_told = false;
  store_->finish(end(sent.id), 0, std::string(kLarge, 'r'), [&](const JobEnd& end) { told = end; });
  store_->finish(end(other.id), 0, std::string(kLarge, 's'),
                 [&](const JobEnd& end) { other_told = end.status == JobStatus::kCompleted; });
  EXPECT_EQ(promise(job()), PromiseOutcome::kStored);
  EXPECT_TRUE(other_told) << "it waits for no other's fault";
  EXPECT_EQ(told.status, JobStatus::kFailed);
}

class EachCallTest : public StoreFileFaultTest, public testing::WithParamInterface<Call> {};

TEST_P(EachCallTest, ThatFailsForEverEndsTheJobsOfItAndStopsNoPromise) {
  ASSERT_TRUE(begin());
  const JobRecord sent = promised();
  files_.fail(GetParam(), EIO);
  JobEnd told;
  store_->finish(end(sent.id), 0, std::string(kLarge, 'r'), [&](const JobEnd& end) { told = end; });
  EXPECT_EQ(promise(job()), PromiseOutcome::kStored);
  EXPECT_EQ(told.status, JobStatus::kFailed);
  EXPECT_TRUE(store_->health());
  const JobRecord small = promised();
  EXPECT_EQ(end_of(small.id, "small").status, JobStatus::kCompleted) << "it needs no file";
}

TEST_P(EachCallTest, ThatFailsTwiceIsTriedUntilTheResultIsWhole) {
  ASSERT_TRUE(begin());
  const JobRecord sent = promised();
  store_->append_result(sent.id, 0, std::string(kLarge, 'r'));
  settle();
  files_.fail(GetParam(), EIO, 2);
  EXPECT_EQ(end_of(sent.id, "rest", kLarge).status, JobStatus::kCompleted);
  EXPECT_TRUE(files_.happened());
  EXPECT_EQ(std::filesystem::file_size(store_->result_path(sent.id)), kLarge + 4);
  EXPECT_TRUE(lost_.empty());
}

INSTANTIATE_TEST_SUITE_P(Of, EachCallTest,
                         testing::Values(Call::kOpen, Call::kWrite, Call::kTruncate, Call::kFlush,
                                         Call::kFolder));

TEST_F(StoreFileFaultTest, PartsOfAResultKeepTheirOrderWhileOneFails) {
  ASSERT_TRUE(begin());
  const JobRecord sent = promised();
  files_.fail(Call::kOpen, EIO, 2);
  store_->append_result(sent.id, 0, std::string(kLarge, 'a'));
  store_->append_result(sent.id, kLarge, std::string(kLarge, 'b'));
  EXPECT_EQ(end_of(sent.id, "c", 2 * kLarge).status, JobStatus::kCompleted);
  std::ifstream file(store_->result_path(sent.id), std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(file)), {});
  EXPECT_TRUE(content == std::string(kLarge, 'a') + std::string(kLarge, 'b') + "c");
}

TEST_F(StoreFileFaultTest, WhileItRunsItsOwnerIsToldAndNoMoreOfItIsKeptInMemory) {
  ASSERT_TRUE(begin());
  const JobRecord sent = promised();
  files_.fail(Call::kOpen, EIO);
  store_->append_result(sent.id, 0, std::string(kLarge, 'r'));
  await([&] { return lost_.size() == 1; });
  EXPECT_EQ(store_->pending_bytes(), 0U);
  files_.heal();
  store_->append_result(sent.id, kLarge, std::string(kLarge, 'r'));
  settle();
  EXPECT_FALSE(std::filesystem::exists(store_->result_path(sent.id)));
  EXPECT_EQ(end_of(sent.id, "rest", 2 * kLarge).status, JobStatus::kFailed)
      << "half of it was not stored";
}

TEST_F(StoreFileFaultTest, WithoutADescriptorItIsTriedForAsLongAsThatTakes) {
  ASSERT_TRUE(begin());
  const JobRecord sent = promised();
  files_.fail(Call::kOpen, EMFILE, 20);
  EXPECT_EQ(end_of(sent.id, std::string(kLarge, 'r')).status, JobStatus::kCompleted);
  EXPECT_TRUE(files_.happened());
}

TEST_F(StoreFileFaultTest, AnAnswerThatWasWaitedForAndCannotBeKeptIsNotReplayed) {
  ASSERT_TRUE(begin());
  JobRecord kept = job();
  kept.key = {7, 7};
  kept.status = JobStatus::kCompleted;
  kept.end = end(kept.id);
  files_.fail(Call::kOpen, EIO);
  JobEnd told;
  store_->keep(kept, false, 0, std::string(kLarge, 'r'), [&](const JobEnd& end) { told = end; });
  settle();
  EXPECT_EQ(told.status, JobStatus::kFailed);
  std::optional<JobRecord> found;
  store_->find_key(kept.key, [&](std::optional<JobRecord> job) { found = std::move(job); });
  settle();
  EXPECT_FALSE(found);
}

TEST_F(StoreFileFaultTest, APromiseThatIsTooLargeForTheDatabaseFailsAlone) {
  static sqlite3* opened = nullptr;
  sqlite3_auto_extension(
      reinterpret_cast<void (*)()>(+[](sqlite3* database, char**, const sqlite3_api_routines*) {
        opened = database;
        return SQLITE_OK;
      }));
  ASSERT_TRUE(begin());
  sqlite3_reset_auto_extension();
  sqlite3_limit(opened, SQLITE_LIMIT_LENGTH, 10'000);
  std::vector<PromiseOutcome> outcomes;
  for (const size_t bytes : {size_t{100}, size_t{20'000}, size_t{100}}) {
    store_->promise(job(), std::string(bytes, 'b'),
                    [&](PromiseOutcome told) { outcomes.push_back(told); });
  }
  settle();
  EXPECT_EQ(outcomes, (std::vector{PromiseOutcome::kStored, PromiseOutcome::kBroken,
                                   PromiseOutcome::kStored}));
  EXPECT_TRUE(store_->health());
}

TEST_F(StoreFileFaultTest, OnAFullDiskEndsAreWrittenIntoTheReserveAndPromisesWait) {
  options_.reserve_bytes = 1 << 20;
  ASSERT_TRUE(begin());
  EXPECT_EQ(std::filesystem::file_size(options_.folder + "/reserve"), 1U << 20);
  const JobRecord sent = promised();
  files_.fail(Call::kWrite, ENOSPC, 1);
  JobEnd told;
  store_->finish(end(sent.id), 0, std::string(kLarge, 'r'), [&](const JobEnd& end) { told = end; });
  await([&] { return store_->disk() != Disk::kWell || told.http_status != 0; });
  files_.fail(Call::kAllocate, ENOSPC);  // nor is there room for the reserve
  await([&] { return told.http_status != 0; });
  EXPECT_EQ(told.status, JobStatus::kCompleted) << "the room was kept for it";
  EXPECT_TRUE(lost_.empty());
  files_.heal();
  await([&] { return store_->disk() == Disk::kWell; });
  EXPECT_EQ(std::filesystem::file_size(options_.folder + "/reserve"), 1U << 20);
  EXPECT_EQ(promise(job()), PromiseOutcome::kStored);
}

TEST_F(StoreFileFaultTest, WithoutRoomForTheReserveNothingIsPromised) {
  options_.reserve_bytes = 1 << 20;
  files_.fail(Call::kAllocate, ENOSPC);
  ASSERT_TRUE(begin());
  EXPECT_EQ(promise(job()), PromiseOutcome::kFull);
  EXPECT_FALSE(store_->health());
  EXPECT_NE(store_->health().error().message.find("no room"), std::string::npos);
  files_.heal();
  await([&] { return store_->disk() == Disk::kWell; });
  EXPECT_EQ(promise(job()), PromiseOutcome::kStored);
}

TEST_F(StoreFileFaultTest, AFileSystemThatKeepsNoRoomIsNoReasonToPromiseNothing) {
  options_.reserve_bytes = 1 << 20;
  files_.fail(Call::kAllocate, EOPNOTSUPP);
  ASSERT_TRUE(begin());
  EXPECT_EQ(promise(job()), PromiseOutcome::kStored);
}

TEST_F(StoreFileFaultTest, TheFolderAboveTheStateIsFlushedToo) {
  ASSERT_TRUE(open());
  EXPECT_TRUE(files_.flushed(options_.folder.c_str()));
  EXPECT_TRUE(files_.flushed(folder_.c_str())) << "else its name may be gone, and all in it";
}

}  // namespace
}  // namespace penstock::queue
