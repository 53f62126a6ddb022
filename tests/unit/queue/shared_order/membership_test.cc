#include "worker/queue/shared_order/membership.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

using End = SharedOrder::End;

// A host, with its own connection and clock; Redis's time is the same clock.
class Host final : public Membership::User {
 public:
  Host(const std::string& socket, int64_t& now_ns) : now_ns_(now_ns), client_(socket) {}

  void on_joined() override { ++joined; }
  void on_expelled(std::string_view told) override {
    why = told;
    stopped.insert(stopped.end(), jobs.begin(), jobs.end());
    jobs.clear();
  }
  void on_lost_data() override { ++lost_data; }
  size_t running() const override { return jobs.size(); }
  bool runs(std::string_view id, uint64_t fence) const override {
    const auto job = jobs.find(std::string(id));
    return job != jobs.end() && job->second == fence;
  }
  void on_held(const std::vector<SharedOrder::Held>& held) override {
    ++compared;
    std::erase_if(jobs, [&](const auto& job) {
      return std::none_of(held.begin(), held.end(), [&](const auto& each) {
        return each.id == job.first && each.fence == job.second;
      });
    });
  }

  // Pushes the time in, and lets what it asks be answered.
  void turn() {
    order.set_clock(now_ns_ / kNsPerUs);
    member.advance_to(now_ns_);
    if (!deaf) {
      for (int trips = 0; trips < 3; ++trips) {  // an answer may be followed by a request
        client_.get<SharedOrder::Known>([&](auto then) { return order.look("x", 0, then); });
      }
    }
  }
  std::vector<SharedOrder::Taken> take(size_t most) {
    auto served = client_.get<SharedOrder::Served>(
        [&](auto then) { return order.serve(member.host(), "", most, {}, then); });
    for (const auto& each : served.taken) {
      jobs[each.id] = each.fence;
    }
    return served.taken;
  }
  End finish(std::string_view host, std::string_view id, uint64_t fence) {
    const std::vector<SharedOrder::Finished> finished = {{id, fence, "answer"}};
    return client_
        .get<SharedOrder::Served>(
            [&](auto then) { return order.serve(host, "", 0, finished, then); })
        .ended.at(0);
  }
  void add(std::string_view id) {
    client_.get<SharedOrder::Added>([&](auto then) { return order.add({.id = id}, then); });
  }
  std::vector<int64_t> positions(std::vector<std::string_view> ids) {
    return client_.get<std::vector<int64_t>>([&](auto then) { return order.positions(ids, then); });
  }
  OrderClient& client() { return client_; }

  std::map<std::string, uint64_t> jobs;
  std::vector<std::pair<std::string, uint64_t>> stopped;
  std::string why;
  int joined = 0, lost_data = 0, compared = 0;
  bool deaf = false;

 private:
  int64_t& now_ns_;
  OrderClient client_;

 public:
  SharedOrder order{client_.servers(), {.name = "q", .attempts = 3}, 60'000};
  Membership member{order, *this};
};

class MembershipTest : public testing::Test {
 protected:
  MembershipTest() {
    a_.client().until_ready();
    b_.client().until_ready();
    a_.turn();
    b_.turn();
  }
  void pass(int64_t ns) { now_ns_ += ns; }

  int64_t now_ns_ = 1'000'000 * kNsPerSec;
  RedisServer server_;
  Host a_{server_.socket(), now_ns_};
  Host b_{server_.socket(), now_ns_};
};

TEST_F(MembershipTest, OneThatIsGoneLosesItsJobsToTheOthers) {
  ASSERT_EQ(a_.joined, 1);
  a_.add("one");
  const std::string name = a_.member.host();
  const auto before = a_.take(1);
  ASSERT_EQ(before.size(), 1U);
  for (int64_t s = 0; s < Membership::kLeaseNs / kNsPerSec; ++s) {
    pass(kNsPerSec);
    EXPECT_TRUE(b_.take(1).empty());
    b_.turn();
  }
  pass(kNsPerSec);
  b_.turn();
  const auto taken = b_.take(1);
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_GT(taken[0].fence, before[0].fence);
  EXPECT_EQ(taken[0].attempts, 1U);
  // It comes back late. Its own clock has told it already; Redis would not believe it.
  EXPECT_EQ(a_.finish(name, "one", before[0].fence), End::kNotOurs);
  a_.turn();
  EXPECT_EQ(a_.stopped.size(), 1U);
  EXPECT_NE(a_.member.host(), name);
  EXPECT_EQ(a_.joined, 2);
  EXPECT_EQ(b_.finish(b_.member.host(), "one", taken[0].fence), End::kEnded);
}

TEST_F(MembershipTest, OneThatRenewsKeepsItsJobs) {
  a_.add("one");
  a_.take(1);
  for (int s = 0; s < 30; ++s) {
    pass(kNsPerSec);
    a_.turn();
    b_.turn();
  }
  EXPECT_EQ(a_.joined, 1);
  EXPECT_TRUE(a_.stopped.empty());
  EXPECT_EQ(a_.compared, 0);
  EXPECT_EQ(a_.member.hosts(), 2U);
}

// Before Redis lets others have what it runs.
TEST_F(MembershipTest, ALeaseCountsFromTheQuestionThoughTheAnswerComesLate) {
  constexpr int64_t kLateNs = 3 * kNsPerSec;
  a_.add("one");
  a_.take(1);
  pass(Membership::kEveryNs);
  a_.deaf = true;
  a_.turn();  // it asks
  pass(kLateNs);
  a_.deaf = false;
  a_.turn();
  a_.deaf = true;
  server_.stop_answering();
  pass(Membership::kLeaseNs - Membership::kMarginNs - kLateNs - 1);
  a_.turn();
  EXPECT_TRUE(a_.stopped.empty());
  pass(1);
  a_.turn();
  EXPECT_EQ(a_.stopped.size(), 1U);
  server_.go_on();
}

TEST_F(MembershipTest, OneThatHearsNothingStopsBeforeItsLeaseEnds) {
  a_.add("one");
  a_.take(1);
  a_.deaf = true;
  server_.stop_answering();
  pass(Membership::kLeaseNs - Membership::kMarginNs - 1);
  a_.turn();
  EXPECT_TRUE(a_.stopped.empty());
  pass(1);
  a_.turn();
  EXPECT_EQ(a_.stopped.size(), 1U);
  EXPECT_EQ(a_.member.host(), "");
  server_.go_on();
}

TEST_F(MembershipTest, OneThatLeavesGivesItsJobsBackAtOnce) {
  a_.add("one");
  a_.take(1);
  a_.member.leave();
  b_.client().get<SharedOrder::Known>([&](auto then) { return b_.order.look("x", 0, then); });
  a_.positions({"one"});
  pass(kNsPerSec);
  b_.turn();
  EXPECT_EQ(b_.take(1).size(), 1U);
}

TEST_F(MembershipTest, AJobThatWasTakenWithoutAnAnswerIsGivenBack) {
  a_.add("one");
  const std::string name = a_.member.host();
  b_.client().get<SharedOrder::Served>(
      [&](auto then) { return b_.order.serve(name, "", 1, {}, then); });
  EXPECT_EQ(b_.positions({"one"}), std::vector<int64_t>{0});
  pass(kNsPerSec);
  a_.turn();
  EXPECT_EQ(b_.positions({"one"}), std::vector<int64_t>{1});
  const auto taken = b_.take(1);
  EXPECT_EQ(taken.at(0).attempts, 0U);
  EXPECT_EQ(a_.compared, 1);
}

TEST_F(MembershipTest, AJobThatRedisLostIsNotItsOwnAnyMore) {
  a_.add("one");
  a_.take(1);
  server_.ask("DEL test:q1:{q}:h|" + a_.member.host());
  pass(kNsPerSec);
  a_.turn();
  EXPECT_TRUE(a_.jobs.empty());
  EXPECT_EQ(a_.joined, 1);
}

TEST_F(MembershipTest, ARedisThatComesBackEmptyIsKnown) {
  a_.add("one");
  a_.take(1);
  server_.kill();
  ASSERT_TRUE(a_.client().until([&] { return !a_.order.ready(); }));
  server_.start();
  ASSERT_TRUE(a_.client().until_ready());
  pass(kNsPerSec);
  a_.turn();
  EXPECT_EQ(a_.stopped.size(), 1U);
  a_.turn();
  EXPECT_EQ(a_.joined, 2);
  EXPECT_EQ(a_.lost_data, 1);
  a_.add("one");
  EXPECT_EQ(a_.take(1).size(), 1U);
  EXPECT_EQ(b_.lost_data, 0);
}

TEST_F(MembershipTest, WhatIsDueIsDoneByAnyHost) {
  const int64_t later_us = now_ns_ / kNsPerUs + 500'000;
  a_.client().get<SharedOrder::Added>(
      [&](auto then) { return a_.order.add({.id = "one", .not_before_us = later_us}, then); });
  EXPECT_EQ(a_.positions({"one"}), std::vector<int64_t>{0});
  pass(kNsPerSec);
  b_.turn();  // hears by its renewal that something is due
  pass(kNsPerMs);
  b_.turn();
  EXPECT_EQ(a_.positions({"one"}), std::vector<int64_t>{1});
}

TEST_F(MembershipTest, WhatMayNotBeTriedAgainIsOver) {
  a_.add("one");
  for (int attempt = 0; attempt < 3; ++attempt) {
    a_.turn();
    ASSERT_EQ(a_.take(1).size(), 1U) << attempt;
    pass(2 * Membership::kLeaseNs);
    b_.turn();
    b_.turn();
  }
  const auto known =
      b_.client().get<SharedOrder::Known>([&](auto then) { return b_.order.look("one", 0, then); });
  EXPECT_EQ(known.state, SharedOrder::Known::State::kOver);
  EXPECT_EQ(known.how, 'L');
  EXPECT_EQ(known.attempts, 3U);
}

}  // namespace
}  // namespace penstock::queue
