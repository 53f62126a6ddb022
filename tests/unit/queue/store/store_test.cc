#include "store_fixture.h"

#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>
#include <map>
#include <thread>

namespace penstock::queue {
namespace {

class StoreTest : public StoreFixture {
 protected:
  StoreTest() {
    const Status opened = open();
    EXPECT_TRUE(opened) << opened.error().message;
  }
};

TEST_F(StoreTest, WhatWasPromisedIsThereAfterOpeningAnew) {
  JobRecord sent = job();
  sent.share = {5, 6};
  sent.tier = "pro";
  sent.priority = -3;
  sent.weight = 4;
  sent.cost = 99;
  sent.key = {7, 8};
  sent.digest = {9, 10};
  sent.callback = "https://example.com/hook";
  sent.receipt = std::string("\0\1binary", 8);
  sent.not_before_ms = kNowMs + 5;
  sent.deadline_ms = kNowMs + 6;
  sent.status = JobStatus::kScheduled;
  ASSERT_EQ(promise(sent, "the frame"), PromiseOutcome::kStored);
  const auto jobs = reopen();
  ASSERT_EQ(jobs.size(), 1U);
  const JobRecord& read = jobs[0];
  EXPECT_EQ(read.id, sent.id);
  EXPECT_EQ(read.owner, sent.owner);
  EXPECT_EQ(read.share, sent.share);
  EXPECT_EQ(read.queue, sent.queue);
  EXPECT_EQ(read.model, sent.model);
  EXPECT_EQ(read.tier, sent.tier);
  EXPECT_EQ(read.priority, sent.priority);
  EXPECT_EQ(read.weight, sent.weight);
  EXPECT_EQ(read.cost, sent.cost);
  EXPECT_EQ(read.key, sent.key);
  EXPECT_EQ(read.digest, sent.digest);
  EXPECT_EQ(read.jobs_path, sent.jobs_path);
  EXPECT_EQ(read.callback, sent.callback);
  EXPECT_EQ(read.receipt, sent.receipt);
  EXPECT_EQ(read.created_ms, sent.created_ms);
  EXPECT_EQ(read.not_before_ms, sent.not_before_ms);
  EXPECT_EQ(read.deadline_ms, sent.deadline_ms);
  EXPECT_EQ(read.status, sent.status);
  EXPECT_EQ(body(sent.id), "the frame");
  EXPECT_EQ(store_->last_id(), sent.id);
}

TEST_F(StoreTest, JobsComeBackInOrderOfArrival) {
  std::vector<JobId> sent;
  for (int i = 0; i < 300; ++i) {
    sent.push_back(job().id);
    JobRecord each = job();
    each.id = sent.back();
    store_->promise(each, "x", [](PromiseOutcome) {});
  }
  settle();
  const auto jobs = reopen();
  ASSERT_EQ(jobs.size(), sent.size());
  for (size_t i = 0; i < jobs.size(); ++i) {
    EXPECT_EQ(jobs[i].id, sent[i]);
  }
}

TEST_F(StoreTest, AJobHasOneEnd) {
  const JobRecord sent = job();
  promise(sent);
  finish(end(sent.id), "first");
  finish(end(sent.id, JobStatus::kCancelled), "second");
  const auto found = find(sent.id);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->status, JobStatus::kCompleted);
  EXPECT_EQ(result(sent.id), "first");
  EXPECT_EQ(body(sent.id), "error") << "its body is of no use any more";
  EXPECT_TRUE(reopen().empty());
}

TEST_F(StoreTest, AnIdIsFoundWholeOrNotAtAll) {
  const JobRecord sent = job();
  promise(sent);
  JobId guessed = sent.id;  // all but its random end
  guessed.text[JobId::kBytes - 1] = guessed.text[JobId::kBytes - 1] == '0' ? '1' : '0';
  EXPECT_FALSE(find(guessed));
  EXPECT_TRUE(find(sent.id));
}

TEST_F(StoreTest, ALargeResultIsAFileOfItsGroupsAndGoesWithItsJob) {
  const JobRecord sent = job();
  promise(sent);
  std::string whole;
  for (int i = 0; i < 5; ++i) {
    const std::string piece(Store::kInlineBytes, static_cast<char>('a' + i));
    store_->append_result(sent.id, whole.size(), piece);
    whole += piece;
  }
  finish(end(sent.id), "tail", whole.size());
  whole += "tail";
  const auto found = find(sent.id);
  ASSERT_TRUE(found && found->result_in_file);
  EXPECT_EQ(found->result_bytes, whole.size());
  const std::string path = store_->result_path(sent.id);
  std::ifstream file(path, std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), whole);
  struct stat status {};
  ::stat(path.c_str(), &status);
  EXPECT_EQ(status.st_mode & 0777, 0640U);
  const uint64_t before = store_->figures().bytes;
  store_->sweep(kNowMs + 60'000);
  settle();
  EXPECT_FALSE(find(sent.id));
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_LE(store_->figures().bytes + whole.size(), before);
}

TEST_F(StoreTest, WhatHasExpiredIsGoneAfterOneSweepHoweverMuchItIs) {
  for (int i = 0; i < 1000; ++i) {
    const JobRecord sent = job();
    store_->promise(sent, "SUBMIT", [](PromiseOutcome) {});
    store_->finish(end(sent.id), 0, "result", [](const JobEnd&) {});
  }
  const JobRecord later = job();
  promise(later);
  JobEnd kept = end(later.id);
  kept.expires_ms += 1;
  finish(kept, "result");
  store_->sweep(kNowMs + 60'000);
  settle();
  JobQuery query;
  query.limit = 100;
  EXPECT_EQ(list(query), std::vector{std::string(later.id.view())});
}

TEST_F(StoreTest, WhereAResultLiesIsToldFromTheRootOn) {
  store_.reset();
  std::filesystem::create_directory(folder_ + "/etc");
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder_ + "/etc");
  for (const std::string& folder : {std::string("../state"), folder_ + "/etc/../state"}) {
    options_.folder = folder;
    ASSERT_TRUE(open());
    const JobId id = ids_.make(kNowMs);
    EXPECT_EQ(store_->result_path(id),
              std::filesystem::canonical(folder_ + "/state/results") / id.view());
    store_.reset();
  }
  std::filesystem::current_path(before);
}

TEST_F(StoreTest, WhoMayReadWhatDoesNotHangOnTheUmask) {
  const auto mode_of = [&](const std::string& name) {
    struct stat status {};
    EXPECT_EQ(::stat((options_.folder + name).c_str(), &status), 0) << name;
    return status.st_mode & 0777;
  };
  for (const mode_t mask : {mode_t{0077}, mode_t{0}}) {
    store_.reset();
    options_.folder = folder_ + "/" + std::to_string(mask);
    const mode_t before = ::umask(mask);
    const bool opened = static_cast<bool>(open());
    const JobRecord sent = job();
    promise(sent);
    finish(end(sent.id), std::string(2 * Store::kInlineBytes, 'r'));
    ::umask(before);
    ASSERT_TRUE(opened);
    EXPECT_EQ(mode_of(""), 0750U);
    EXPECT_EQ(mode_of("/results"), 0750U);
    EXPECT_EQ(mode_of("/results/" + std::string(sent.id.view())), 0640U);
    EXPECT_EQ(mode_of("/jobs.db"), 0600U) << "requests are in it, and Nginx's group may enter";
    EXPECT_EQ(mode_of("/jobs.db-wal"), 0600U);
    EXPECT_EQ(mode_of("/secret"), 0600U);
  }
}

TEST_F(StoreTest, AnAttemptBegunAnewForgetsWhatTheOneBeforeHadAnswered) {
  const JobRecord sent = job();
  promise(sent);
  store_->append_result(sent.id, 0, std::string(100'000, 'x'));
  store_->append_result(sent.id, 0, std::string(50'000, 'y'));
  finish(end(sent.id), "z", 50'000);
  EXPECT_EQ(std::filesystem::file_size(store_->result_path(sent.id)), 50'001U);
}

TEST_F(StoreTest, FilesThatNoJobTellsOfAreRemovedAtTheStart) {
  const JobRecord sent = job();
  promise(sent);
  store_->append_result(sent.id, 0, std::string(100'000, 'x'));
  settle();
  const std::string path = store_->result_path(sent.id);
  EXPECT_TRUE(std::filesystem::exists(path));
  reopen();
  settle();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(StoreTest, AKeyNamesOneJobUntilThatFails) {
  JobRecord first = job();
  first.key = {1, 2};
  EXPECT_EQ(promise(first), PromiseOutcome::kStored);
  JobRecord second = job();
  second.key = first.key;
  EXPECT_EQ(promise(second), PromiseOutcome::kDuplicate);
  EXPECT_FALSE(find(second.id));
  finish(end(first.id), "done");
  EXPECT_EQ(promise(second), PromiseOutcome::kDuplicate);
  std::optional<JobRecord> found;
  store_->find_key(first.key, [&](std::optional<JobRecord> job) { found = std::move(job); });
  settle();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->id, first.id);

  JobRecord third = job();
  third.key = {3, 4};
  promise(third);
  finish(end(third.id, JobStatus::kFailed), "");
  JobRecord fourth = job();
  fourth.key = third.key;
  EXPECT_EQ(promise(fourth), PromiseOutcome::kStored);
}

TEST_F(StoreTest, AnAnswerThatWasWaitedForIsKeptForItsKey) {
  JobRecord kept = job();
  kept.key = {1, 2};
  kept.end = end(kept.id);
  kept.status = JobStatus::kCompleted;
  store_->keep(kept, false, 0, "the answer", [](const JobEnd&) {});
  settle();
  EXPECT_TRUE(reopen().empty());
  EXPECT_EQ(result(kept.id), "the answer");
}

TEST_F(StoreTest, TheDeadAreKeptWithTheirBodiesAndMayBeWantedAgain) {
  const JobRecord sent = job();
  promise(sent, "the frame");
  JobEnd dead = end(sent.id, JobStatus::kFailed);
  dead.dead = true;
  dead.attempts = 3;
  dead.error_code = "engine_failed";
  dead.error = "cudaErrorIllegalAddress";
  finish(dead, "");
  EXPECT_EQ(store_->figures().dead, 1U);
  EXPECT_EQ(body(sent.id), "the frame");
  JobQuery query;
  query.dead = true;
  EXPECT_EQ(list(query).size(), 1U);
  std::optional<JobRecord> again;
  store_->requeue(sent.id, kNowMs + 9, "anew",
                  [&](std::optional<JobRecord> job) { again = std::move(job); });
  settle();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->status, JobStatus::kQueued);
  EXPECT_EQ(again->end.attempts, 0U);
  EXPECT_EQ(again->deadline_ms, kNowMs + 9);
  EXPECT_EQ(again->trace, "anew");
  EXPECT_EQ(store_->figures().dead, 0U);
  store_->requeue(sent.id, 0, "", [&](std::optional<JobRecord> job) { again = std::move(job); });
  settle();
  EXPECT_FALSE(again) << "it is not among the dead";
  EXPECT_EQ(reopen().size(), 1U);
}

TEST_F(StoreTest, OnlyWhatHasEndedCanBeDropped) {
  const JobRecord sent = job();
  promise(sent);
  bool dropped = true;
  store_->drop(sent.id, [&](bool told) { dropped = told; });
  settle();
  EXPECT_FALSE(dropped);
  finish(end(sent.id), "x");
  store_->drop(sent.id, [&](bool told) { dropped = told; });
  settle();
  EXPECT_TRUE(dropped);
  EXPECT_FALSE(find(sent.id));
}

TEST_F(StoreTest, AListIsOfOneOwnerNewestFirst) {
  std::vector<std::string> alices;
  for (int i = 0; i < 5; ++i) {
    const JobRecord mine = job("alice");
    promise(mine);
    finish(end(mine.id), "");
    promise(job("alice"));  // the living are known without it
    promise(job("bob"));
    alices.insert(alices.begin(), std::string(mine.id.view()));
  }
  JobQuery query;
  query.owner = job("alice").owner;
  query.limit = 3;
  auto page = list(query);
  ASSERT_EQ(page, std::vector(alices.begin(), alices.begin() + 3));
  query.before = parse_job_id(page.back());
  EXPECT_EQ(list(query), std::vector(alices.begin() + 3, alices.end()));
  query.before.reset();
  query.statuses = 1U << static_cast<uint32_t>(JobStatus::kFailed);
  EXPECT_TRUE(list(query).empty());
  JobQuery everybody;
  EXPECT_EQ(list(everybody).size(), 15U);
  everybody.queue = "other";
  EXPECT_TRUE(list(everybody).empty());
}

TEST_F(StoreTest, ADeliveryIsDueFromTheEndUntilItIsOver) {
  JobRecord sent = job();
  sent.share = {7, 8};
  sent.callback = "https://example.com/";
  promise(sent);
  EXPECT_TRUE(due().due.empty());
  finish(end(sent.id), "x");
  reopen();
  DuePage page = due();
  ASSERT_EQ(page.due.size(), 1U);
  EXPECT_EQ(page.due[0].id, sent.id);
  EXPECT_EQ(page.due[0].owner, sent.share.lo);
  store_->delivered(sent.id, 2, kNowMs + 77);
  settle();
  reopen();
  page = due();
  ASSERT_EQ(page.due.size(), 1U);
  EXPECT_EQ(page.due[0].tries, 2U);
  EXPECT_EQ(page.due[0].due_ms, kNowMs + 77);
  store_->delivered(sent.id, 3, 0);
  settle();
  reopen();
  EXPECT_TRUE(due().due.empty());
}

TEST_F(StoreTest, DeliveriesAreReadInPagesOrAnOwnersAlone) {
  std::vector<JobId> ids;
  for (int i = 0; i < 6; ++i) {
    JobRecord sent = job(i % 3 == 0 ? "alice" : "bob");
    sent.share = sent.owner;
    sent.callback = "https://example.com/";
    promise(sent);
    JobEnd over = end(sent.id);
    over.finished_ms = kNowMs + i / 2;  // two at a time
    finish(over, "x");
    ids.push_back(sent.id);
  }
  std::vector<JobId> seen;
  DueQuery query{.until_ms = kNowMs + 1, .limit = 1};
  for (DuePage page = due(query); !page.due.empty(); page = due(query)) {
    EXPECT_FALSE(page.all) << "not counted for each page";
    seen.push_back(page.due[0].id);
    query.after_ms = page.due[0].due_ms;
    query.after_sequence = sequence_of(page.due[0].id);
  }
  EXPECT_EQ(seen, std::vector(ids.begin(), ids.begin() + 4));
  EXPECT_EQ(due(query).next_ms, kNowMs + 2);
  EXPECT_EQ(due(query).all, 6U);
  const DuePage alices = due({.owner = job("alice").owner.lo, .until_ms = kNowMs + 9});
  ASSERT_EQ(alices.due.size(), 2U);
  EXPECT_EQ(alices.due[1].id, ids[3]);
  EXPECT_EQ(alices.next_ms, 0) << "there is no other";
}

TEST_F(StoreTest, ANoticeIsDueAtOnceWhateverTheClockSaid) {
  const auto ends = [this] {
    const JobRecord told = job();
    promise(told);
    JobEnd over = end(told.id);
    over.notices = {{"tell", "fields", "{}"}};
    finish(over, "");
  };
  const auto due_now = [this] {
    NoticePage page;
    store_->due_notices({.hook = "tell", .until_ms = kNowMs - 1},
                        [&](NoticePage told) { page = std::move(told); });
    settle();
    return page.due.size();
  };
  reopen();
  ends();
  EXPECT_EQ(due_now(), 1U);
  const auto bytes = static_cast<int64_t>(store_->figures().bytes);
  store_->set_max_bytes(bytes + bytes / 4, 0);
  ends();
  EXPECT_EQ(due_now(), 1U) << "the last quarter of the room is for promises";
  store_->set_max_bytes(2 * bytes, 0);
  ends();
  EXPECT_EQ(due_now(), 2U);
}

TEST_F(StoreTest, AUrlThatIsDisabledStaysSoAndTheLastOnesAreKept) {
  store_->disable_url("https://a.example/");
  store_->disable_url("https://b.example/");
  store_->disable_url("https://a.example/");
  settle();
  reopen();
  EXPECT_EQ(gone_urls_, (std::vector<std::string>{"https://a.example/", "https://b.example/"}));
  for (size_t i = 0; i < kMostGoneUrls - 1; ++i) {
    store_->disable_url(std::to_string(i));
  }
  settle();
  gone_urls_.clear();
  reopen();
  EXPECT_EQ(gone_urls_.size(), kMostGoneUrls);
  EXPECT_EQ(gone_urls_.front(), "https://b.example/");
}

TEST_F(StoreTest, AJobWhoseWebhookIsToBeDeliveredIsKeptForThat) {
  const int64_t expires_ms = kNowMs + 60'000;
  JobRecord told = job();
  JobRecord untold = job();
  told.callback = untold.callback = "https://example.com/";
  for (const JobRecord& each : {told, untold}) {
    promise(each);
    finish(end(each.id), "x");
  }
  store_->delivered(told.id, 3, kNowMs + 77);
  store_->sweep(expires_ms + kDeliveryMs - 1);
  settle();
  EXPECT_TRUE(find(told.id));
  EXPECT_TRUE(find(untold.id));
  store_->delivered(told.id, 4, 0);
  store_->sweep(expires_ms - 1);
  settle();
  EXPECT_TRUE(find(told.id));
  store_->sweep(expires_ms);
  settle();
  EXPECT_FALSE(find(told.id)) << "it was delivered";
  EXPECT_TRUE(find(untold.id));
  store_->sweep(expires_ms + kDeliveryMs);
  settle();
  EXPECT_FALSE(find(untold.id)) << "nor is it kept for ever";
  reopen();
  EXPECT_TRUE(due().due.empty());
}

TEST_F(StoreTest, PastItsBoundNothingMoreIsPromised) {
  store_.reset();
  options_.max_bytes = 1 << 20;
  ASSERT_TRUE(open());
  PromiseOutcome outcome = PromiseOutcome::kStored;
  int promised = 0;
  while (outcome == PromiseOutcome::kStored && promised < 1000) {
    outcome = promise(job(), std::string(10'000, 'x'));
    ++promised;
  }
  EXPECT_EQ(outcome, PromiseOutcome::kFull);
  EXPECT_GT(promised, 50);
  EXPECT_TRUE(store_->health()) << "full is not broken";
}

TEST_F(StoreTest, ASecondOneOnTheSameFolderIsRefused) {
  const auto second = Store::open(options_);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another penstockd"), std::string::npos);
}

TEST_F(StoreTest, ADamagedDatabaseIsSetAsideAndSaid) {
  const JobRecord sent = job();
  promise(sent);
  finish(end(sent.id), std::string(2 * Store::kInlineBytes, 'r'));
  store_.reset();
  const std::string path = options_.folder + "/jobs.db";
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(0);
    file << std::string(4096, '\xAB');
  }
  std::filesystem::remove(path + "-wal");
  ASSERT_TRUE(open());
  ASSERT_EQ(store_->notices().size(), 1U);
  EXPECT_NE(store_->notices()[0].find("was set aside as"), std::string::npos);
  std::map<std::string, std::filesystem::path> aside;
  for (const auto& entry : std::filesystem::directory_iterator(options_.folder)) {
    const std::string name = entry.path().filename();
    if (const size_t at = name.find(".damaged-"); at != std::string::npos) {
      aside[name.substr(0, at)] = entry.path();
    }
  }
  ASSERT_EQ(aside.size(), 2U);
  EXPECT_TRUE(aside.contains("jobs.db"));
  EXPECT_TRUE(std::filesystem::exists(aside["results"] / sent.id.view()))
      << "the results it tells of lie beside it";
  EXPECT_EQ(promise(job()), PromiseOutcome::kStored);
}

TEST_F(StoreTest, ADatabaseOfSomethingElseIsNotTaken) {
  store_.reset();
  const std::string path = options_.folder + "/jobs.db";
  std::filesystem::remove(path);
  std::filesystem::remove(path + "-wal");
  execute("CREATE TABLE t(x)");
  ASSERT_TRUE(open());
  ASSERT_EQ(store_->notices().size(), 1U);
  EXPECT_NE(store_->notices()[0].find("something else"), std::string::npos);
}

// Owners are indexed some hundreds of jobs at once.
class ListTest : public StoreTest {
 protected:
  static constexpr int kJobs = 1300;

  void promise_all() {
    for (int i = 0; i < kJobs; ++i) {
      add(job(kOwners[i % 3]), i % 3);
    }
    settle();
  }
  void add(const JobRecord& job, int owner) {
    ids_of_[owner].emplace_back(job.id.view());
    std::sort(ids_of_[owner].rbegin(), ids_of_[owner].rend());
    store_->promise(job, "SUBMIT", [](PromiseOutcome) {});
    store_->finish(end(job.id), 0, "", [](const JobEnd&) {});
  }
  // Page by page.
  std::vector<std::string> all_of(int owner) {
    JobQuery query;
    query.owner = job(kOwners[owner]).owner;
    query.limit = 100;
    std::vector<std::string> ids;
    for (auto page = list(query); !page.empty(); page = list(query)) {
      ids.insert(ids.end(), page.begin(), page.end());
      query.before = parse_job_id(page.back());
    }
    return ids;
  }
  void expect_all() {
    for (int owner = 0; owner < 3; ++owner) {
      EXPECT_EQ(all_of(owner), ids_of_[owner]) << kOwners[owner];
    }
  }

  static constexpr const char* kOwners[] = {"alice", "bob", "carol"};
  std::vector<std::string> ids_of_[3];
};

TEST_F(ListTest, ALongListIsWholeAndSoItIsAfterARestart) {
  promise_all();
  expect_all();
  reopen();
  expect_all();
  promise_all();
  expect_all();
}

TEST_F(ListTest, AJobThatComesLateStandsInItsPlace) {
  const JobRecord early = job("bob");
  promise_all();
  add(early, 1);
  settle();
  expect_all();
}

TEST_F(ListTest, WhatIsDroppedIsListedNoMore) {
  promise_all();
  for (auto& ids : ids_of_) {
    for (const std::string& id : ids) {
      store_->drop(*parse_job_id(id), [](bool) {});
    }
    settle();
    ids.clear();
  }
  expect_all();
  EXPECT_EQ(execute("SELECT count(*) FROM ended"), "0");
  EXPECT_EQ(execute("SELECT count(*) FROM recently_ended"), "0");
}

TEST_F(ListTest, ADatabaseOfTheFirstSchemaIsMigrated) {
  promise_all();
  JobRecord told = job("dave");
  told.callback = "https://example.com/";
  promise(told);
  finish(end(told.id), "x");
  execute(
      "DROP INDEX deliveries_due; DROP INDEX deliveries_whose; DROP TABLE gone_urls;"
      "ALTER TABLE deliveries DROP COLUMN whose;"
      "DROP TABLE ended; DROP TABLE recently_ended; DROP INDEX jobs_live;"
      "CREATE INDEX jobs_owner ON jobs(owner); ALTER TABLE jobs DROP COLUMN share;"
      "ALTER TABLE jobs DROP COLUMN headers; ALTER TABLE jobs DROP COLUMN estimated;"
      "ALTER TABLE jobs DROP COLUMN label; DROP INDEX jobs_earlier;"
      "ALTER TABLE jobs DROP COLUMN earlier; DROP TABLE notices; DROP TABLE away;"
      "DROP TABLE usage; DROP TABLE usage_mark; ALTER TABLE jobs DROP COLUMN paid;"
      "ALTER TABLE jobs DROP COLUMN trace;"
      "PRAGMA user_version=1");
  reopen();
  const auto migrated = find(*parse_job_id(ids_of_[0].front()));
  EXPECT_TRUE(migrated && migrated->share == migrated->owner);
  expect_all();
  EXPECT_EQ(due({.owner = told.owner.lo, .until_ms = INT64_MAX}).due.size(), 1U);
  promise_all();
  expect_all();
}

TEST_F(StoreTest, ADatabaseThatSomebodyElseHasOpenIsAnErrorAndIsLeftAlone) {
  const JobRecord sent = job();
  promise(sent);
  store_.reset();
  const std::string path = options_.folder + "/jobs.db";
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "SELECT count(*) FROM jobs", nullptr, nullptr, nullptr), SQLITE_OK);
  const Status opened = open();
  EXPECT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("locked"), std::string::npos) << opened.error().message;
  sqlite3_close(other);
  EXPECT_EQ(reopen().size(), 1U) << "nothing is lost";
}

TEST_F(StoreTest, ANewerSchemaIsAnErrorAndIsLeftAlone) {
  execute("PRAGMA user_version=99");
  const Status opened = open();
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("version 99"), std::string::npos);
  EXPECT_TRUE(std::filesystem::exists(options_.folder + "/jobs.db"));
}

TEST_F(StoreTest, ADamagedRowHasFailedAndIsNobodys) {
  const JobRecord good = job();
  promise(good);
  const JobRecord bad = job();
  promise(bad);
  execute("UPDATE jobs SET owner=x'00', status=77 WHERE seq=" +
          std::to_string(sequence_of(bad.id)));
  const auto jobs = reopen();
  settle();
  ASSERT_EQ(jobs.size(), 1U);
  EXPECT_TRUE(find(good.id));
  const auto found = find(bad.id);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->status, JobStatus::kFailed);
  EXPECT_EQ(found->owner, limit::Hash128{});
}

TEST_F(StoreTest, ADamagedSecretIsAnErrorThatSaysWhatLosingItMeans) {
  store_.reset();
  std::ofstream(options_.folder + "/secret", std::ios::trunc) << "short";
  const Status opened = open();
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("is damaged"), std::string::npos);
}

TEST_F(StoreTest, TheSecretStaysTheSame) {
  const limit::Secret secret = store_->secret();
  reopen();
  EXPECT_EQ(store_->secret(), secret);
  struct stat status {};
  ::stat((options_.folder + "/secret").c_str(), &status);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
}

// A child promises, and says each on a pipe once it was told; it is killed at some moment. What it
// has said is there.
TEST_F(StoreTest, WhatWasToldIsThereWhateverMomentTheProcessWasKilledAt) {
  store_.reset();
  size_t told = 0;
  for (int round = 0; round < 15; ++round) {
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      JobIdMaker ids;
      auto store = *Store::open(options_);
      if (store->last_id()) {
        ids.start_after(*store->last_id());
      }
      for (;;) {
        for (int i = 0; i < 10; ++i) {
          JobRecord sent = job();
          sent.id = ids.make(kNowMs);
          store->promise(sent, "x", [&, sent](PromiseOutcome outcome) {
            if (outcome == PromiseOutcome::kStored) {
              [[maybe_unused]] auto n = ::write(pipe[1], sent.id.text, JobId::kBytes);
            }
          });
        }
        while (store->pending() > 0) {
          pollfd ready{store->event_fd(), POLLIN, 0};
          ::poll(&ready, 1, -1);
          store->tell_done();
        }
      }
    }
    ::close(pipe[1]);
    std::vector<JobId> promised;
    JobId id;
    const size_t enough = 10 + static_cast<size_t>(round) * 7;
    while (promised.size() < enough && ::read(pipe[0], id.text, JobId::kBytes) == JobId::kBytes) {
      promised.push_back(id);
    }
    ::kill(child, SIGKILL);
    while (::read(pipe[0], id.text, JobId::kBytes) == JobId::kBytes) {
      promised.push_back(id);
    }
    ::close(pipe[0]);
    ::waitpid(child, nullptr, 0);
    ASSERT_GE(promised.size(), enough);
    told += promised.size();
    reopen();
    for (const JobId& each : promised) {
      EXPECT_TRUE(find(each)) << each.view();
    }
    store_.reset();
  }
  EXPECT_GT(told, 500U);
}

}  // namespace
}  // namespace penstock::queue
