// A store in a folder of its own, asked and waited for.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sqlite3.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "worker/queue/store/store.h"

namespace penstock::queue {

class StoreFixture : public testing::Test {
 protected:
  static constexpr int64_t kNowMs = 1'763'780'000'000;

  StoreFixture() {
    std::string name = std::filesystem::temp_directory_path() / "store.XXXXXX";
    folder_ = ::mkdtemp(name.data());
    options_.folder = folder_ + "/state";
    options_.log_bytes = 256U << 10;  // so that it is written over, and quickly made
  }
  ~StoreFixture() override {
    store_.reset();
    std::filesystem::remove_all(folder_);
  }

  Status open() {
    auto opened = Store::open(options_);
    if (!opened) {
      return opened.error();
    }
    store_ = *std::move(opened);
    if (const auto last = store_->last_id()) {
      ids_.start_after(*last);
    }
    return Ok{};
  }
  // As after a crash of ours: closed, opened, and what it remembers.
  std::vector<JobRecord> reopen() {
    store_.reset();
    std::vector<JobRecord> jobs;
    const Status opened = open();
    EXPECT_TRUE(opened) << opened.error().message;
    if (opened) {
      EXPECT_TRUE(store_->recover([&](JobRecord&& job) { jobs.push_back(std::move(job)); },
                                  [&](const std::string& url) { gone_urls_.push_back(url); }));
    }
    return jobs;
  }
  // What somebody else does to the database, the store being closed. The last value that it yields.
  std::string execute(const std::string& sql) {
    store_.reset();
    sqlite3* database = nullptr;
    EXPECT_EQ(sqlite3_open((options_.folder + "/jobs.db").c_str(), &database), SQLITE_OK);
    std::string value;
    const auto note = [](void* to, int, char** values, char**) {
      *static_cast<std::string*>(to) = values[0] == nullptr ? "" : values[0];
      return 0;
    };
    EXPECT_EQ(sqlite3_exec(database, sql.c_str(), note, &value, nullptr), SQLITE_OK)
        << sqlite3_errmsg(database);
    sqlite3_close(database);
    return value;
  }
  DuePage due(const DueQuery& query = {.until_ms = INT64_MAX}) {
    DuePage page;
    store_->due(query, [&](DuePage told) { page = std::move(told); });
    settle();
    return page;
  }
  void settle() {
    while (store_->pending() > 0) {
      pollfd ready{store_->event_fd(), POLLIN, 0};
      ASSERT_EQ(::poll(&ready, 1, 10'000), 1) << "the store says nothing";
      store_->tell_done();
    }
  }

  JobRecord job(const char* owner = "alice") {
    JobRecord job;
    job.id = ids_.make(kNowMs);
    job.owner = {std::hash<std::string>()(owner), 1};
    job.share = job.owner;
    job.queue = "default";
    job.model = "demo";
    job.jobs_path = "/jobs";
    job.created_ms = kNowMs;
    return job;
  }
  PromiseOutcome promise(const JobRecord& job, const std::string& submit = "SUBMIT") {
    std::optional<PromiseOutcome> outcome;
    store_->promise(job, submit, [&](PromiseOutcome told) { outcome = told; });
    settle();
    return outcome.value_or(PromiseOutcome::kBroken);
  }
  static JobEnd end(const JobId& id, JobStatus status = JobStatus::kCompleted) {
    JobEnd end;
    end.id = id;
    end.status = status;
    end.finished_ms = kNowMs + 1000;
    end.expires_ms = kNowMs + 60'000;
    end.http_status = 200;
    end.content_type = "text/plain";
    return end;
  }
  void finish(const JobEnd& end, const std::string& result, uint64_t offset = 0) {
    store_->finish(end, offset, result, [](const JobEnd&) {});
    settle();
  }
  std::optional<JobRecord> find(const JobId& id) {
    std::optional<JobRecord> found;
    store_->find(id, [&](std::optional<JobRecord> record) { found = std::move(record); });
    settle();
    return found;
  }
  // Its text, or "error: ...".
  std::string result(const JobId& id) {
    std::string text = "nothing was told";
    const auto take = [&](Result<std::string> read) {
      text = read ? *read : "error: " + read.error().message;
    };
    store_->read_result(id, take);
    settle();
    return text;
  }
  std::string body(const JobId& id) {
    std::string text = "nothing was told";
    store_->fetch(id, [&](Result<std::string> read) { text = read ? *read : "error"; });
    settle();
    return text;
  }
  std::vector<std::string> list(const JobQuery& query) {
    std::vector<std::string> ids;
    store_->list(query, [&](JobPage page) {
      for (const JobRecord& each : page.jobs) {
        ids.emplace_back(each.id.view());
      }
      page_ = std::move(page);
    });
    settle();
    return ids;
  }

  std::string folder_;
  Store::Options options_;
  JobIdMaker ids_;
  std::vector<std::string> gone_urls_;
  JobPage page_;  // that list() has seen last
  std::unique_ptr<Store> store_;
};

}  // namespace penstock::queue
