#include "worker/queue/jobs/job_table.h"

#include <gtest/gtest.h>

#include <vector>

namespace penstock::queue {
namespace {

Job& add(JobTable& table, JobIdMaker& ids) { return table.add(ulid_of(ids.make(1))); }

TEST(JobTableTest, FindsEachAmongMany) {
  JobTable table;
  JobIdMaker ids;
  std::vector<Job*> jobs(10'000);
  for (Job*& job : jobs) {
    job = &add(table, ids);
  }
  for (Job* const job : jobs) {
    EXPECT_EQ(table.find(job->ulid), job);
  }
  EXPECT_EQ(table.find(ulid_of(ids.make(1))), nullptr);
  for (size_t i = 0; i < jobs.size(); i += 2) {
    const Ulid id = jobs[i]->ulid;
    table.erase(*jobs[i]);
    EXPECT_EQ(table.find(id), nullptr);
  }
  for (size_t i = 1; i < jobs.size(); i += 2) {
    EXPECT_EQ(table.find(jobs[i]->ulid), jobs[i]);
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
