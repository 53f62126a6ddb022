#include "worker/queue/jobs/job_table.h"

#include <gtest/gtest.h>

#include <vector>

namespace penstock::queue {
namespace {

Job& add(JobTable& table, JobIdMaker& ids) {
  auto job = std::make_unique<Job>();
  job->id = ids.make(1);
  return table.add(std::move(job));
}

TEST(JobTableTest, FindsEachAmongMany) {
  JobTable table;
  JobIdMaker ids;
  std::vector<Job*> jobs(10'000);
  for (Job*& job : jobs) {
    job = &add(table, ids);
  }
  for (Job* const job : jobs) {
    EXPECT_EQ(table.find(job->id.view()), job);
  }
  EXPECT_EQ(table.find(ids.make(1).view()), nullptr);
  EXPECT_EQ(table.find("job_1"), nullptr);
  EXPECT_EQ(table.find(""), nullptr);
  for (size_t i = 0; i < jobs.size(); i += 2) {
    const JobId id = jobs[i]->id;
    table.erase(*jobs[i]);
    EXPECT_EQ(table.find(id.view()), nullptr);
  }
  for (size_t i = 1; i < jobs.size(); i += 2) {
    EXPECT_EQ(table.find(jobs[i]->id.view()), jobs[i]);
  }
  EXPECT_EQ(table.size(), jobs.size() / 2);
}

TEST(JobTableTest, AVisitMayEraseWhereItIs) {
  JobTable table;
  JobIdMaker ids;
  for (int i = 0; i < 1000; ++i) {
    add(table, ids);
  }
  size_t seen = 0;
  table.each([&](Job& job) {
    ++seen;
    table.erase(job);
  });
  EXPECT_EQ(seen, 1000U);
  EXPECT_EQ(table.size(), 0U);
}

}  // namespace
}  // namespace penstock::queue
