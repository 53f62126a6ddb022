#include "worker/queue/jobs/owned_jobs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "worker/queue/jobs/job_table.h"

namespace penstock::queue {
namespace {

// What comes and goes in whatever order, beside a std::map.
TEST(OwnedJobsTest, ListsWhatAMapDoesNewestFirst) {
  constexpr uint64_t kOwners = 7;
  std::mt19937_64 random(1);
  JobIdMaker ids;
  JobTable table;
  OwnedJobs owned;
  std::map<std::pair<uint64_t, uint64_t>, Job*> known;
  std::vector<Job*> out;
  for (int i = 0; i < 4000; ++i) {
    out.push_back(&table.add(ulid_of(ids.make(1))));
    out.back()->owner = 1 + random() % kOwners;
  }
  std::shuffle(out.begin(), out.end(), random);
  std::vector<Job*> in;
  const auto move_one = [&](std::vector<Job*>& from, std::vector<Job*>& to) {
    std::swap(from[random() % from.size()], from.back());
    to.push_back(from.back());
    from.pop_back();
    return to.back();
  };
  for (int step = 0; step < 20'000; ++step) {
    const bool comes = in.empty() || (!out.empty() && random() % 2 == 0);
    Job& job = comes ? *move_one(out, in) : *move_one(in, out);
    const std::pair key(job.owner, job.ulid.sequence());
    if (comes) {
      owned.insert(job);
      known[key] = &job;
    } else {
      owned.erase(job);
      known.erase(key);
    }
    const uint64_t owner = 1 + random() % kOwners;
    const uint64_t before = step % 2 == 0 ? UINT64_MAX : job.ulid.sequence();
    const size_t most = random() % 50;
    std::vector<Job*> expected;
    for (auto at = known.lower_bound({owner, before});
         at != known.begin() && expected.size() < most && (--at)->first.first == owner;) {
      expected.push_back(at->second);
    }
    ASSERT_EQ(owned.list(owner, before, most), expected);
  }
}

}  // namespace
}  // namespace penstock::queue
