// What jobs are told of the workers of all hosts, by their rank alone, and what comes true.
#include "worker/queue/order/all_hosts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <queue>
#include <random>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/order/scheduler.h"

namespace penstock::queue {
namespace {

constexpr double kSecond = kNsPerSec;

AllHosts hosts(uint32_t slots, uint32_t running, double spread = 0) {
  return {.shared = true,
          .slots = slots,
          .running = running,
          .mean_ns = 10 * kSecond,
          .spread = spread,
          .seen = 100};
}

TEST(AllHostsTest, NobodyWaitsWhereASlotIsFree) {
  EXPECT_EQ(hosts(4, 2).wait_ns(1), 0);
  EXPECT_EQ(hosts(4, 2).wait_ns(2), 0);
  EXPECT_GT(hosts(4, 2).wait_ns(3), 0);
}

TEST(AllHostsTest, EachRankWaitsForItsPartOfAJobMore) {
  const AllHosts all = hosts(4, 4);
  EXPECT_EQ(all.wait_ns(1), 5 * kNsPerSec / 4);  // half a job is left of each, on average
  EXPECT_EQ(all.wait_ns(9) - all.wait_ns(5), 10 * kNsPerSec);
  EXPECT_GT(hosts(4, 4, 1).wait_ns(1), all.wait_ns(1));
}

TEST(AllHostsTest, WhereNothingIsKnownNothingIsTold) {
  EXPECT_EQ(AllHosts{}.wait_ns(1000), 0);
  EXPECT_EQ(AllHosts{}.rank_within(1), UINT32_MAX);
  AllHosts unseen = hosts(4, 4);
  unseen.seen = 0;
  EXPECT_EQ(unseen.wait_ns(1000), 0);
}

TEST(AllHostsTest, TheLastRankWithinAWaitIsTheLast) {
  const AllHosts all = hosts(3, 1, 0.4);
  for (const int64_t most_ns : {int64_t{0}, int64_t{1}, kNsPerSec, 60 * kNsPerSec}) {
    const uint32_t last = all.rank_within(most_ns);
    EXPECT_LE(all.wait_ns(last), most_ns);
    EXPECT_GT(all.wait_ns(last + 1), most_ns);
  }
}

// Three hosts, one of which is half as fast, serve one line; what each is told of the others is a
// second old. Times are log-normal, and load comes and goes.
class Cluster {
 public:
  explicit Cluster(double sigma) : sigma_(sigma) {
    queue_ = &scheduler_.set_queue({.name = "q"});
    lane_ = &scheduler_.lane(*queue_, "m");
    for (const auto& [slots, mean] : {std::pair{2, 1.0}, {2, 2.0}, {4, 1.0}}) {
      for (int i = 0; i < slots; ++i) {
        means_.push_back(mean * kSecond);
        free_.push_back(means_.size() - 1);
      }
    }
    AllHosts& all = lane_->all_hosts;
    double rate = 0;
    for (const double mean : means_) {
      rate += 1 / mean;
    }
    all = {.shared = true,
           .slots = static_cast<uint32_t>(means_.size()),
           .mean_ns = static_cast<double>(means_.size()) / rate,
           .spread = std::expm1(sigma * sigma),
           .seen = 512};
    rate_ = rate;
  }

  struct Seen {
    double inside = 0;
    double late = 0;
    double bias = 0;  // of waits, over their mean
    int told = 0;
  };
  Seen run(int jobs) {
    Seen seen;
    double waited = 0;
    double off = 0;
    for (int i = 0; i < jobs; ++i) {
      const double load = i / 500 % 2 == 0 ? 1.3 : 0.7;  // backlog grows and goes
      now_ns_ += std::exponential_distribution<double>(rate_ * load)(random_);
      advance();
      waiting_.push_back({now_ns_, Scheduler::foretell_at(*lane_, rank())});
      start();
      while (!news_.empty()) {
        const auto [foretold, wait_ns] = news_.front();
        news_.pop();
        if (i > jobs / 4 && foretold.told.known()) {
          ++seen.told;
          seen.inside += foretold.soon_ns <= wait_ns && wait_ns <= foretold.late_ns ? 1 : 0;
          seen.late += wait_ns > foretold.late_ns ? 1 : 0;
          waited += static_cast<double>(wait_ns);
          off += static_cast<double>(foretold.wait_ns - wait_ns);
        }
      }
    }
    seen.inside /= seen.told;
    seen.late /= seen.told;
    seen.bias = off / waited;
    return seen;
  }

 private:
  struct Waiting {
    double came_ns;
    Scheduler::Foretold foretold;
  };
  struct Running {
    double ends_ns;
    size_t slot;
    bool operator>(const Running& other) const { return ends_ns > other.ends_ns; }
  };
  uint32_t rank() const { return static_cast<uint32_t>(waiting_.size()) + 1; }

  void advance() {
    while (!running_.empty() && running_.top().ends_ns <= now_ns_) {
      const Running done = running_.top();
      running_.pop();
      free_.push_back(done.slot);
      start_at(done.ends_ns);
    }
    if (now_ns_ >= told_ns_) {  // the roster
      told_ns_ = now_ns_ + kSecond;
      lane_->all_hosts.running = static_cast<uint32_t>(running_.size());
    }
  }
  void start() { start_at(now_ns_); }
  void start_at(double at_ns) {
    while (!free_.empty() && !waiting_.empty()) {
      const Waiting job = waiting_.front();
      waiting_.pop_front();
      const size_t slot = free_.back();
      free_.pop_back();
      const double mu = std::log(means_[slot]) - sigma_ * sigma_ / 2;
      running_.push({at_ns + std::lognormal_distribution<double>(mu, sigma_)(random_), slot});
      const auto wait_ns = static_cast<int64_t>(at_ns - job.came_ns);
      lane_->spread.started();
      Scheduler::came_true(*lane_, job.foretold, wait_ns);
      news_.push({job.foretold, wait_ns});
    }
  }

  const double sigma_;
  Scheduler scheduler_;
  Scheduler::Queue* queue_;
  Scheduler::Lane* lane_;
  std::mt19937 random_{17};
  std::vector<double> means_;
  std::vector<size_t> free_;
  std::deque<Waiting> waiting_;
  std::priority_queue<Running, std::vector<Running>, std::greater<>> running_;
  std::queue<std::pair<Scheduler::Foretold, int64_t>> news_;
  double rate_ = 0;
  double now_ns_ = 0;
  double told_ns_ = 0;
};

TEST(AllHostsTest, FourOfFiveStartWithinWhatTheyWereTold) {
  for (const double sigma : {0.2, 0.6, 1.0}) {
    const Cluster::Seen seen = Cluster(sigma).run(40'000);
    RecordProperty("inside", std::to_string(seen.inside));
    EXPECT_GT(seen.told, 10'000) << sigma;
    EXPECT_NEAR(seen.inside, 0.8, 0.05) << sigma;
    EXPECT_NEAR(seen.late, 0.1, 0.04) << sigma;
    EXPECT_NEAR(seen.bias, 0, 0.1) << sigma;
  }
}

}  // namespace
}  // namespace penstock::queue
