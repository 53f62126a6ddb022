// State that earlier versions have left behind, as their own SQL made it.
#include <sqlite3.h>

#include "store_fixture.h"

namespace penstock::queue {
namespace {

// Version 2, the last that was in use before 3.
constexpr const char* kSchemaTwo =
    "PRAGMA journal_mode=WAL; PRAGMA application_id=1346719315; PRAGMA user_version=2;"
    "CREATE TABLE jobs(seq INTEGER PRIMARY KEY, id BLOB NOT NULL, owner BLOB NOT NULL,"
    "  status INTEGER NOT NULL, key BLOB, digest BLOB NOT NULL, queue BLOB NOT NULL,"
    "  model BLOB NOT NULL, tier BLOB NOT NULL, priority INTEGER NOT NULL, weight INTEGER NOT NULL,"
    "  cost INTEGER NOT NULL, jobs_path BLOB NOT NULL, callback BLOB NOT NULL,"
    "  receipt BLOB NOT NULL, created_ms INTEGER NOT NULL, not_before_ms INTEGER NOT NULL,"
    "  deadline_ms INTEGER NOT NULL, attempts INTEGER NOT NULL, dead INTEGER NOT NULL DEFAULT 0,"
    "  started_ms INTEGER NOT NULL DEFAULT 0, finished_ms INTEGER NOT NULL DEFAULT 0,"
    "  expires_ms INTEGER, http_status INTEGER NOT NULL DEFAULT 0,"
    "  content_type BLOB NOT NULL DEFAULT x'', error_code BLOB NOT NULL DEFAULT x'',"
    "  error BLOB NOT NULL DEFAULT x'', prompt_tokens INTEGER NOT NULL DEFAULT 0,"
    "  completion_tokens INTEGER NOT NULL DEFAULT 0, device_ns INTEGER NOT NULL DEFAULT 0,"
    "  result_bytes INTEGER NOT NULL DEFAULT 0, result_in_file INTEGER NOT NULL DEFAULT 0,"
    "  submit BLOB);"
    "CREATE UNIQUE INDEX jobs_key ON jobs(key) WHERE key IS NOT NULL;"
    "CREATE INDEX jobs_expire ON jobs(expires_ms) WHERE expires_ms IS NOT NULL;"
    "CREATE INDEX jobs_dead ON jobs(seq) WHERE dead = 1;"
    "CREATE TABLE results(seq INTEGER PRIMARY KEY, body BLOB NOT NULL);"
    "CREATE TABLE deliveries(seq INTEGER PRIMARY KEY, id BLOB NOT NULL, tries INTEGER NOT NULL,"
    "  due_ms INTEGER NOT NULL);"
    "CREATE TABLE owned(whose BLOB NOT NULL, job INTEGER NOT NULL, PRIMARY KEY(whose, job))"
    "  WITHOUT ROWID;"
    "CREATE TABLE owned_up_to(job INTEGER NOT NULL);"
    "INSERT INTO owned_up_to VALUES(0);";

std::string blob(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string text = "x'";
  for (const char byte : bytes) {
    text += kDigits[static_cast<uint8_t>(byte) >> 4];
    text += kDigits[static_cast<uint8_t>(byte) & 0xF];
  }
  return text + "'";
}
std::string blob(const limit::Hash128& hash) {
  return blob({reinterpret_cast<const char*>(&hash), sizeof hash});
}

class MigrationTest : public StoreFixture {
 protected:
  MigrationTest() { std::filesystem::create_directory(options_.folder); }

  static std::string seq(const JobRecord& job) { return std::to_string(sequence_of(job.id)); }
  // As version 2 wrote them.
  void add(const JobRecord& job) {
    sql_ +=
        "INSERT INTO jobs(seq, id, owner, status, key, digest, queue, model, tier, priority,"
        " weight, cost, jobs_path, callback, receipt, created_ms, not_before_ms, deadline_ms,"
        " attempts, submit) VALUES(" +
        seq(job) + "," + blob(job.id.view()) + "," + blob(job.owner) + ",1," +
        (job.key == limit::Hash128{} ? "NULL" : blob(job.key)) + "," + blob(job.digest) + "," +
        blob(job.queue) + "," + blob(job.model) + ",x'',0,1,1," + blob(job.jobs_path) + "," +
        blob(job.callback) + "," + blob(job.receipt) + "," + std::to_string(job.created_ms) +
        ",0,0,0," + blob("the frame") + ");";
  }
  void end(const JobRecord& job, JobStatus status, const std::string& result, bool dead = false) {
    const std::string how = std::to_string(static_cast<int>(status));
    sql_ += "UPDATE jobs SET status=" + how + ", expires_ms=" + std::to_string(kNowMs + 60'000) +
            ", finished_ms=" + std::to_string(kNowMs) +
            ", result_bytes=" + std::to_string(result.size()) +
            ", http_status=200, content_type=x'61'," + (dead ? " dead=1" : " submit=NULL") +
            " WHERE seq=" + seq(job) + ";";
    if (!result.empty()) {
      sql_ += "INSERT INTO results VALUES(" + seq(job) + "," + blob(result) + ");";
    }
    if (!job.callback.empty()) {
      sql_ += "INSERT INTO deliveries VALUES(" + seq(job) + "," + blob(job.id.view()) + ",2," +
              std::to_string(kNowMs) + ");";
    }
  }
  // The owners of all jobs so far were indexed.
  void index_owners() {
    sql_ +=
        "INSERT OR IGNORE INTO owned SELECT owner, seq FROM jobs;"
        "UPDATE owned_up_to SET job=(SELECT max(seq) FROM jobs);";
  }
  void make() { execute(sql_); }
  std::vector<std::string> ended_of(const JobRecord& one, JobStatus status) {
    return list({.owner = one.owner, .statuses = 1U << static_cast<int>(status), .limit = 10});
  }
  static std::string name(const JobRecord& job) { return std::string(job.id.view()); }

  std::string sql_ = kSchemaTwo;
};

TEST_F(MigrationTest, AllThatVersionTwoKeptIsThere) {
  JobRecord early = job("alice");  // its owner was indexed, those of the others not yet
  early.receipt = "settled long ago";
  early.key = {7, 8};
  add(early);
  end(early, JobStatus::kCompleted, "what came of it");
  index_owners();
  JobRecord told = job("bob");
  told.callback = "https://example.com/hook";
  add(told);
  end(told, JobStatus::kCompleted, "more");
  const JobRecord dead = job("alice");
  add(dead);
  end(dead, JobStatus::kFailed, "", true);
  JobRecord queued = job("alice");
  queued.receipt = "still held";
  add(queued);
  make();

  const std::vector<JobRecord> live = reopen();
  EXPECT_TRUE(store_->notices().empty()) << store_->notices()[0];
  ASSERT_EQ(live.size(), 1U);
  EXPECT_EQ(live[0].id, queued.id);
  EXPECT_EQ(live[0].share, queued.owner) << "a share was the owner's";
  EXPECT_EQ(live[0].receipt, "still held");
  EXPECT_EQ(body(queued.id), "the frame");

  EXPECT_EQ(ended_of(early, JobStatus::kCompleted), std::vector{name(early)});
  EXPECT_EQ(ended_of(early, JobStatus::kFailed), std::vector{name(dead)});
  EXPECT_EQ(ended_of(told, JobStatus::kCompleted), std::vector{name(told)});
  EXPECT_EQ(list({.dead = true, .limit = 10}), std::vector{name(dead)});
  EXPECT_EQ(store_->figures().dead, 1U);
  EXPECT_EQ(result(early.id), "what came of it");
  EXPECT_EQ(body(dead.id), "the frame");
  EXPECT_EQ(find(early.id)->key, early.key);

  const auto of_bob = due({.owner = told.owner.lo, .until_ms = INT64_MAX});
  ASSERT_EQ(of_bob.due.size(), 1U);
  EXPECT_EQ(of_bob.due[0].id, told.id);
  EXPECT_EQ(of_bob.due[0].tries, 2U);
  std::vector<JobRecord> unsettled;
  EXPECT_TRUE(store_->unsettled(10, [&](JobRecord&& each) { unsettled.push_back(each); }));
  EXPECT_TRUE(unsettled.empty()) << "its edge was told before";
}

TEST_F(MigrationTest, WhatComesAfterwardsStandsBesideIt) {
  const JobRecord before = job();
  add(before);
  make();
  ASSERT_EQ(reopen().size(), 1U);
  JobRecord after = job();
  after.share = {5, 6};
  after.receipt = "held";
  ASSERT_EQ(promise(after), PromiseOutcome::kStored);
  for (const JobId& id : {before.id, after.id}) {
    finish(StoreFixture::end(id), "done");
  }
  EXPECT_EQ(ended_of(after, JobStatus::kCompleted), (std::vector{name(after), name(before)}));
  EXPECT_TRUE(reopen().empty());
  EXPECT_EQ(find(after.id)->share, after.share);
  size_t unsettled = 0;
  EXPECT_TRUE(store_->unsettled(10, [&](JobRecord&&) { ++unsettled; }));
  EXPECT_EQ(unsettled, 1U);
  store_->sweep(kNowMs + 60'000);
  settle();
  EXPECT_FALSE(find(before.id));
}

}  // namespace
}  // namespace penstock::queue
