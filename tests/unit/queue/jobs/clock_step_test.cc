// The time of day is stepped, back and forward, while jobs are kept, and between two lives of
// penstockd.
#include <time.h>

#include "promise_fixture.h"

namespace penstock::queue {
namespace {

constexpr int64_t kHour = 3600 * kNsPerSec;
constexpr int64_t kMinute = 60 * kNsPerSec;

class ClockStepTest : public PromiseTest {
 protected:
  // A penstockd that is started anew over the same store; only its scheduler is looked at.
  struct Life {
    Life(ConnectionLoop& connections, const Config& config, Store& store)
        : dispatcher(connections, [] { return wall_ns_ / kNsPerMs; }) {
      dispatcher.apply(config);
      dispatcher.use(store);
      EXPECT_TRUE(store.recover([this](JobRecord&& job) { dispatcher.restore(std::move(job)); },
                                [](const std::string&) {}));
    }
    Dispatcher dispatcher;
  };
  std::unique_ptr<Life> restart() {
    store_.reset();
    store_ = *Store::open({.folder = folder_ + "/state"});
    return std::make_unique<Life>(connections_, config_, *store_);
  }

  static std::string http_date(int64_t wall_ns) {
    const time_t seconds = wall_ns / kNsPerSec;
    tm utc{};
    ::gmtime_r(&seconds, &utc);
    char text[40];
    ::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    return text;
  }
  std::string promise_in(Peer& peer, uint64_t id, int64_t in_ns) {
    const std::string seconds = std::to_string(in_ns / kNsPerSec);
    wire::Submit message = async();
    message.delay = seconds;
    return promised(peer, id, message);
  }
  std::string promise_at(Peer& peer, uint64_t id, int64_t wall_ns) {
    const std::string date = http_date(wall_ns);
    wire::Submit message = async();
    message.not_before = date;
    return promised(peer, id, message);
  }
  // As the main loop does, at least twice a second.
  void wake() { advance(500 * kNsPerMs); }
  std::string status_of(Peer& peer, uint64_t id, const std::string& job) {
    const std::string body = get_job(peer, id, job).body;
    const std::string name = R"("status":")";
    const size_t at = body.find(name) + name.size();
    return body.substr(at, body.find('"', at) - at);
  }
  static int64_t number(const std::string& json, const std::string& name) {
    const size_t at = json.find('"' + name + "\":");
    EXPECT_NE(at, std::string::npos) << json;
    return std::stoll(json.substr(at + name.size() + 3));
  }
};

TEST_F(ClockStepTest, ADelayIsOfElapsedTimeWhereverTheClockGoes) {
  Peer peer = caller();
  Peer device = worker(2);
  promise_in(peer, 1, kHour);
  step(-24 * kHour);
  wake();
  step(48 * kHour);
  wake();
  EXPECT_FALSE(device.next());
  advance(kHour - 2 * kNsPerSec);
  settle();
  EXPECT_FALSE(device.next());
  advance(2 * kNsPerSec);
  settle();
  take(device);
  EXPECT_FALSE(device.next());
}

TEST_F(ClockStepTest, ADateIsOfTheClockThatWasSetBack) {
  Peer peer = caller();
  Peer device = worker(2);
  const std::string id = promise_at(peer, 1, wall_ns_ + kHour);
  const int64_t due = number(get_job(peer, 2, id).body, "not_before");
  step(-kHour);
  wake();
  EXPECT_NEAR(static_cast<double>(number(get_job(peer, 3, id).body, "not_before")),
              static_cast<double>(due), 1);
  advance(kHour);
  settle();
  EXPECT_FALSE(device.next()) << "its date has not come";
  advance(kHour);
  settle();
  take(device);
  EXPECT_FALSE(device.next());
}

TEST_F(ClockStepTest, ADateIsOfTheClockThatWasSetForward) {
  Peer peer = caller();
  Peer device = worker(2);
  const std::string passed = promise_at(peer, 1, wall_ns_ + kHour);
  const std::string ahead = promise_at(peer, 2, wall_ns_ + 4 * kHour);
  step(2 * kHour);
  wake();
  settle();
  EXPECT_EQ(status_of(peer, 3, passed), "processing");
  EXPECT_EQ(status_of(peer, 4, ahead), "scheduled");
  take(device);
  EXPECT_FALSE(device.next());
}

TEST_F(ClockStepTest, AClockThatIsSlewedIsFollowedWithoutAWord) {
  Peer peer = caller();
  Peer device = worker(1);
  promise_at(peer, 1, wall_ns_ + kMinute);
  testing::internal::CaptureStderr();
  for (int i = 0; i < 118; ++i) {  // a second of each minute, which no clock is slewed by
    wake();
    step(9 * kNsPerMs);
  }
  wake();
  settle();
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_TRUE(device.next()) << "by the clock, its date has come";
}

TEST_F(ClockStepTest, WhatHasBecomeDueIsRunOnceThoughItsDateComesAgain) {
  Peer peer = caller();
  Peer device = worker(2);
  const std::string id = promise_at(peer, 1, wall_ns_ + kMinute);
  advance(kMinute + kNsPerSec);
  settle();
  const uint64_t number = take(device);
  step(-kHour);
  wake();
  answer(device, number, "made once");
  advance(2 * kHour);
  settle();
  EXPECT_FALSE(device.next());
  EXPECT_EQ(get_job(peer, 2, id, "/result").body, "made once");
}

TEST_F(ClockStepTest, AJobMovedByItsDateHasItsWholeDeadlineFromThen) {
  config_.queues[0].deadline_ns = 10 * kMinute;
  apply();
  Peer peer = caller();
  const std::string id = promise_at(peer, 1, wall_ns_ + kHour);
  step(2 * kHour);
  wake();
  advance(9 * kMinute);
  settle();
  EXPECT_EQ(status_of(peer, 2, id), "queued");
  advance(kMinute);
  settle();
  EXPECT_EQ(status_of(peer, 3, id), "expired");
}

TEST_F(ClockStepTest, ADeadlineIsOfElapsedTimeWhereverTheClockGoes) {
  config_.queues[0].deadline_ns = 10 * kMinute;
  apply();
  Peer peer = caller();
  const std::string id = promised(peer, 1);
  step(24 * kHour);
  wake();
  settle();
  EXPECT_EQ(status_of(peer, 2, id), "queued");
  step(-48 * kHour);
  advance(9 * kMinute);
  settle();
  EXPECT_EQ(status_of(peer, 3, id), "queued");
  advance(kMinute);
  settle();
  EXPECT_EQ(status_of(peer, 4, id), "expired");
}

TEST_F(ClockStepTest, AResultIsKeptForItsTimeWhereverTheClockGoes) {
  Peer peer = caller();
  Peer device = worker(1);
  const std::string id = promised(peer, 1);
  answer(device, take(device), "kept");
  step(-24 * kHour);
  const std::string other = promised(peer, 9);
  answer(device, take(device), "as long");
  const auto sweep = [&] {
    store_->sweep(dispatcher_.keeping_ms());
    settle();
  };
  step(365 * 24 * kHour);
  wake();
  sweep();
  EXPECT_EQ(get_job(peer, 2, id, "/result").body, "kept");
  step(-2 * 365 * 24 * kHour);
  advance(config_.queues[0].keep_results_ns - kMinute);
  sweep();
  EXPECT_EQ(get_job(peer, 3, id, "/result").body, "kept");
  EXPECT_EQ(get_job(peer, 4, other, "/result").body, "as long");
  advance(kMinute);
  sweep();
  EXPECT_EQ(get_job(peer, 5, id, "/result").status, 404U);
  EXPECT_EQ(get_job(peer, 6, other, "/result").status, 404U);
}

TEST_F(ClockStepTest, IdsStayInOrderAndAJobSaysOneTimeOfItsMaking) {
  Peer peer = caller();
  Peer device = worker(0);
  const std::string first = promised(peer, 1);
  step(-24 * kHour);
  const std::string second = promised(peer, 2);
  EXPECT_LT(first, second);
  const std::string list = ask(peer, 3, get("")).body;
  EXPECT_LT(list.find(second), list.find(first)) << "newest first";
  const int64_t created = number(get_job(peer, 4, second).body, "created_at");
  device.send(0, wire::Take{2});
  settle();
  answer(device, take(device), "one");
  answer(device, take(device), "two");
  EXPECT_EQ(number(get_job(peer, 5, second).body, "created_at"), created);
}

TEST_F(ClockStepTest, OverARestartAClockThatWasSetBackNeitherLosesNorHoldsUpAJob) {
  config_.queues[0].deadline_ns = 10 * kMinute;
  apply();
  Peer peer = caller();
  const std::string id = promised(peer, 1);
  step(-365 * 24 * kHour);
  const auto life = restart();
  const Job* job = life->dispatcher.find(*parse_job_id(id));
  ASSERT_NE(job, nullptr);
  EXPECT_LE(job->arrived_ns(), now_ns_) << "aging would wait for a year";
  pass(11 * kMinute);
  life->dispatcher.advance_to(now_ns_);
  settle();
  EXPECT_EQ(life->dispatcher.find(*parse_job_id(id)), nullptr) << "its deadline has passed";
}

TEST_F(ClockStepTest, OverARestartAScheduledJobIsByTheClock) {
  Peer peer = caller();
  const std::string id = promise_at(peer, 1, wall_ns_ + kHour);
  step(-kHour);
  const auto life = restart();
  using State = Scheduler::Ticket::State;
  const auto state_after = [&](int64_t ns) {
    pass(ns);
    life->dispatcher.advance_to(now_ns_);
    return life->dispatcher.find(*parse_job_id(id))->state();
  };
  EXPECT_EQ(state_after(90 * kMinute), State::kScheduled);
  step(-kHour);
  EXPECT_EQ(state_after(40 * kMinute), State::kScheduled) << "set back once more";
  EXPECT_EQ(state_after(55 * kMinute), State::kWaiting);
}

}  // namespace
}  // namespace penstock::queue
