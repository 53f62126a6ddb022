// What histories do not show of the shared order: what is said again, who is told, what Redis loses
// or cannot take, tags beyond what a double holds.
#include "worker/queue/shared_order/shared_order.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/channel.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

using Admission = SharedOrder::Admission;
using End = SharedOrder::End;
using State = SharedOrder::Known::State;

constexpr char kHost[] = "host-one";
constexpr char kOther[] = "host-two";

class SharedOrderTest : public testing::Test {
 protected:
  explicit SharedOrderTest(std::vector<std::string> options = {}) : server_(std::move(options)) {
    join(kHost);
    join(kOther);
  }

  void join(const std::string& host) {
    client_.get<SharedOrder::Renewed>(
        [&](auto then) { return order_.renew(host, SharedOrder::Life::kJoins, 60'000'000, then); });
  }
  SharedOrder::Added add(const SharedOrder::Job& job) {
    return client_.get<SharedOrder::Added>([&](auto then) { return order_.add(job, then); });
  }
  SharedOrder::Added add(std::string_view id) { return add({.id = id, .lane = "m", .body = "b"}); }
  SharedOrder::Served serve(std::string_view host, size_t most,
                            std::vector<SharedOrder::Finished> finished = {}) {
    return client_.get<SharedOrder::Served>(
        [&](auto then) { return order_.serve(host, "m", most, finished, then); });
  }
  SharedOrder::Known look(std::string_view id, size_t most = 0) {
    return client_.get<SharedOrder::Known>([&](auto then) { return order_.look(id, most, then); });
  }
  End cancel(std::string_view id) {
    return client_.get<End>([&](auto then) { return order_.cancel(id, "", then); });
  }
  std::vector<int64_t> positions(std::vector<std::string_view> ids) {
    return client_.get<std::vector<int64_t>>(
        [&](auto then) { return order_.positions(ids, then); });
  }

  RedisServer server_;
  OrderClient client_{server_.socket()};
  SharedOrder order_{client_.servers(), {.name = "q", .max_length = 100'000}, 60'000};
};

TEST_F(SharedOrderTest, AJobThatIsAddedAgainIsThereOnce) {
  EXPECT_EQ(add("a").admission, Admission::kAdded);
  const auto again = add("a");
  EXPECT_EQ(again.admission, Admission::kThere);
  EXPECT_EQ(again.job, "a");
  const auto taken = serve(kHost, 2).taken;
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(add("a").admission, Admission::kThere);
  serve(kHost, 0, {{"a", taken[0].fence, "answer"}});
  EXPECT_EQ(add("a").admission, Admission::kThere);
}

// What comes in one request is as if one came after the other.
TEST_F(SharedOrderTest, OfThoseThatComeTogetherTheEarlierIsThereForTheLater) {
  order_.set({.name = "q", .max_length = 3, .max_per_owner = 2}, 60'000);
  const std::vector<SharedOrder::Job> jobs = {
      {.id = "a", .lane = "m", .owner = 1, .key = "k", .key_is = "d", .key_ms = 60'000},
      {.id = "a", .lane = "m", .owner = 1},
      {.id = "b", .lane = "m", .owner = 1, .key = "k", .key_is = "d", .key_ms = 60'000},
      {.id = "c", .lane = "m", .owner = 1, .last_position = 1},
      {.id = "d", .owner = 1, .last_position = 2},
      {.id = "e", .lane = "m", .owner = 1},
      {.id = "f", .lane = "m", .owner = 2},
      {.id = "g", .lane = "m", .owner = 3}};
  const auto added = client_.get<std::vector<SharedOrder::Added>>(
      [&](auto then) { return order_.add(jobs, then); });
  std::vector<Admission> is;
  for (const SharedOrder::Added& each : added) {
    is.push_back(each.admission);
  }
  EXPECT_EQ(is, (std::vector{Admission::kAdded, Admission::kThere, Admission::kKeyUsed,
                             Admission::kTooFar, Admission::kAdded, Admission::kOwnerFull,
                             Admission::kAdded, Admission::kQueueFull}));
  EXPECT_EQ(added.at(2).job, "a");
  EXPECT_EQ(added.at(3).position, 2);
  EXPECT_EQ(added.at(4).position, 2);
  EXPECT_EQ(positions({"a", "d", "f", "c"}), (std::vector<int64_t>{1, 2, 3, -1}));
}

TEST_F(SharedOrderTest, WhatIsNotOursHarmsNoJobThatComesWithIt) {
  server_.ask("SADD test:q1:{q}:j|b x");
  const std::vector<SharedOrder::Job> jobs = {{.id = "a", .lane = "m"}, {.id = "b", .lane = "m"}};
  EXPECT_THROW(client_.get<std::vector<SharedOrder::Added>>(
                   [&](auto then) { return order_.add(jobs, then); }),
               std::runtime_error);
  EXPECT_EQ(server_.ask("KEYS test:q1:{q}:l*"), "");
  EXPECT_EQ(look("a").state, State::kUnknown);
  EXPECT_EQ(add("a").admission, Admission::kAdded);
  EXPECT_EQ(serve(kHost, 2).taken.size(), 1U);
}

TEST_F(SharedOrderTest, AnOwnerIsBoundedByThoseThatCameSinceOwnersAre) {
  add({.id = "a", .lane = "m", .owner = 1});
  order_.set({.name = "q", .max_length = 100, .max_per_owner = 1}, 60'000);
  EXPECT_EQ(add({.id = "b", .lane = "m", .owner = 1}).admission, Admission::kAdded);
  EXPECT_EQ(add({.id = "c", .lane = "m", .owner = 1}).admission, Admission::kOwnerFull);
  cancel("a");
  EXPECT_EQ(add({.id = "c", .lane = "m", .owner = 1}).admission, Admission::kOwnerFull);
  cancel("b");
  EXPECT_EQ(add({.id = "c", .lane = "m", .owner = 1}).admission, Admission::kAdded);
}

// ---- callers who wait at a home

class SharedOrderHomeTest : public SharedOrderTest {
 protected:
  static constexpr int64_t kStart = 1'000'000'000'000, kLease = 8'000'000;

  SharedOrderHomeTest() {
    at(0);
    renew("edge-one", SharedOrder::Life::kJoins);
    add({.id = "waited", .lane = "m", .home = "its-home", .waited = true, .body = "b"});
    add({.id = "promised", .lane = "m", .home = "its-home", .body = "b"});
  }
  void at(int64_t us) { order_.set_clock(kStart + us); }
  void renew(std::string_view host, SharedOrder::Life life) {
    EXPECT_TRUE(client_
                    .get<SharedOrder::Renewed>([&](auto then) {
                      return order_.renew(host, life, kLease, then, "its-home");
                    })
                    .known);
  }
  SharedOrder::Reaped reap() {
    return client_.get<SharedOrder::Reaped>([&](auto then) { return order_.reap(100, then); });
  }
};

TEST_F(SharedOrderHomeTest, WhatCallersWaitForAtAHomeThatIsGoneIsCancelled) {
  EXPECT_EQ(reap().over, 0U);
  at(kLease + 1);
  EXPECT_EQ(reap().over, 0U) << "all are missed where Redis was away: they may come back";
  at(kLease + SharedOrder::kMissedUs);
  EXPECT_EQ(reap().over, 0U);
  at(kLease + 1 + SharedOrder::kMissedUs);
  EXPECT_EQ(reap().over, 1U);
  EXPECT_EQ(look("waited").how, 'C');
  EXPECT_EQ(look("promised").state, State::kWaiting);
  EXPECT_EQ(server_.ask("KEYS test:q1:{q}:C*"), "");
  EXPECT_EQ(server_.ask("EXISTS test:q1:{q}:G"), "0");
}

TEST_F(SharedOrderHomeTest, AHomeWhoseHostComesBackByAnotherNameIsNotGone) {
  at(kLease + 1);
  reap();
  renew("edge-two", SharedOrder::Life::kJoins);
  at(2 * kLease);
  renew("edge-two", SharedOrder::Life::kStays);
  at(kLease + 1 + SharedOrder::kMissedUs);
  EXPECT_EQ(reap().over, 0U);
  EXPECT_EQ(look("waited").state, State::kWaiting);
}

TEST_F(SharedOrderHomeTest, OfAJobThatIsOverNothingStaysAtItsHome) {
  EXPECT_EQ(server_.ask("SMEMBERS test:q1:{q}:C|its-home"), "waited\n");
  const auto taken = serve(kHost, 1).taken.at(0);
  EXPECT_EQ(taken.id, "waited");
  serve(kHost, 0, {{"waited", taken.fence, "answer"}});
  EXPECT_EQ(server_.ask("EXISTS test:q1:{q}:C|its-home"), "0");
}

TEST_F(SharedOrderHomeTest, OfAHomeThatIsLeftTheJobsAreCancelledThatRunToo) {
  Channel runner(server_.socket(), "test:q1:{q}:c|" + std::string(kHost));
  EXPECT_EQ(serve(kHost, 1).taken.at(0).id, "waited");
  renew("edge-one", SharedOrder::Life::kLeaves);
  reap();
  at(1 + SharedOrder::kMissedUs);
  EXPECT_EQ(reap().over, 1U);
  EXPECT_EQ(runner.next().substr(0, 11), "stop waited");
}

TEST_F(SharedOrderTest, AKeyIsForOneJobUntilThatIsForgotten) {
  const SharedOrder::Job job{
      .id = "a", .lane = "m", .key = "k", .key_is = "digest 1", .key_ms = 60'000};
  EXPECT_EQ(add(job).admission, Admission::kAdded);
  auto other = job;
  other.id = "b";
  other.key_is = "digest 2";
  const auto told = add(other);
  EXPECT_EQ(told.admission, Admission::kKeyUsed);
  EXPECT_EQ(told.job, "a");
  EXPECT_EQ(told.key_is, "digest 1");
  EXPECT_EQ(look("b").state, State::kUnknown);
  server_.ask("DEL test:q1:{q}:j|a");
  EXPECT_EQ(add(other).admission, Admission::kAdded);
}

TEST_F(SharedOrderTest, AKeyIsFreeForWhoSaysThatItsJobDoesNotCount) {
  const SharedOrder::Job job{.id = "a", .lane = "m", .key = "k", .key_is = "d", .key_ms = 60'000};
  add(job);
  cancel("a");
  auto other = job;
  other.id = "b";
  EXPECT_EQ(add(other).admission, Admission::kKeyUsed);
  other.instead_of = "x";
  EXPECT_EQ(add(other).admission, Admission::kKeyUsed);
  other.instead_of = "a";
  EXPECT_EQ(add(other).admission, Admission::kAdded);
  other.id = "c";
  EXPECT_EQ(add(other).job, "b");
}

TEST_F(SharedOrderTest, ARedisThatHasLostATakingGivesItsFenceToNobodyElse) {
  add("a");
  server_.keep_copy();
  const uint64_t fence = serve(kHost, 1).taken.at(0).fence;
  server_.go_back_to_copy();
  order_.set_clock(realtime_ns() / kNsPerUs + 250'000);
  EXPECT_GT(serve(kOther, 1).taken.at(0).fence, fence);
  EXPECT_EQ(serve(kHost, 0, {{"a", fence, "another's"}}).ended, std::vector{End::kNotOurs});
}

TEST_F(SharedOrderTest, AJobThatBeginsAnewHasLaterFencesWhateverTheClockSays) {
  const int64_t now_us = realtime_ns() / kNsPerUs;
  add("a");
  order_.set_clock(now_us + 30'000'000);
  const uint64_t fence = serve(kHost, 1).taken.at(0).fence;
  serve(kHost, 0, {{.id = "a", .fence = fence, .result = "dead", .how = 'X'}});
  order_.set_clock(now_us);
  EXPECT_EQ(add({.id = "a", .lane = "m", .anew = true, .body = "b"}).admission, Admission::kAdded);
  EXPECT_GT(serve(kHost, 1).taken.at(0).fence, fence);
}

TEST_F(SharedOrderTest, WhatIsKnownOfAJobIsItsBodyUntilItHasAResult) {
  add({.id = "a", .lane = "m", .body = "what was asked"});
  EXPECT_EQ(look("a").result, "what was asked");
  EXPECT_EQ(look("a", 4).result, "what");
  serve(kHost, 1);
  EXPECT_EQ(look("a").result, "what was asked");
  cancel("a");
  EXPECT_EQ(look("a").result, "what was asked");
  add({.id = "b", .lane = "m", .body = "what was asked"});
  const uint64_t fence = serve(kHost, 1).taken.at(0).fence;
  serve(kHost, 0, {{"b", fence, "an answer"}});
  EXPECT_EQ(look("b").result, "an answer");
  EXPECT_EQ(look("b", 2).result, "an");
}

TEST_F(SharedOrderTest, HostsTellEachOtherWhatTheyServeForAWhile) {
  const auto tell = [&](std::string_view host, std::string_view says, std::string_view secret) {
    return client_.get<SharedOrder::Roster>([&](auto then) {
      return order_.tell({.host = host, .text = says, .lasts_us = 5'000'000, .secret = secret},
                         then);
    });
  };
  order_.set_clock(1'000'000);
  EXPECT_EQ(tell(kHost, "m", "secret one").said.at(0).text, "m");
  order_.set_clock(3'000'000);
  const auto both = tell(kOther, "n", "secret two");
  EXPECT_EQ(both.secret, "secret one");
  EXPECT_EQ(both.said.size(), 2U);
  const auto of = [](const SharedOrder::Roster& roster, std::string_view text) {
    const auto found = std::find_if(roster.said.begin(), roster.said.end(),
                                    [&](const auto& each) { return each.text == text; });
    return found == roster.said.end() ? INT64_MIN : found->holds_us;
  };
  EXPECT_EQ(of(both, "m"), 3'000'000);
  EXPECT_EQ(of(both, "n"), 5'000'000);
  order_.set_clock(7'000'000);
  EXPECT_EQ(of(tell(kOther, "n", ""), "m"), -1'000'000);  // it was there
  order_.set_clock(607'000'000);
  EXPECT_EQ(tell(kOther, "n", "").said.size(), 1U);
}

TEST_F(SharedOrderTest, OfAHostThatSaysNoMoreTheBeginningIsKept) {
  const std::string text(2 * SharedOrder::kGoneBytes, 'x');
  const auto tell = [&](std::string_view host, std::string_view says) {
    return client_
        .get<SharedOrder::Roster>([&](auto then) {
          return order_.tell({.host = host, .text = says, .lasts_us = 1000, .secret = "s"}, then);
        })
        .said;
  };
  order_.set_clock(1'000'000);
  EXPECT_EQ(tell(kHost, text).at(0).text, text);
  order_.set_clock(2'000'000);
  const auto said = tell(kOther, "");
  ASSERT_EQ(said.size(), 2U);
  EXPECT_EQ(std::max(said[0].text.size(), said[1].text.size()), SharedOrder::kGoneBytes);
}

TEST_F(SharedOrderTest, TheRosterSaysHowTheQueueStands) {
  const auto roster = [&] {
    return client_.get<SharedOrder::Roster>([&](auto then) {
      return order_.tell({.host = kOther, .text = "", .lasts_us = 1000, .secret = "s"}, then);
    });
  };
  order_.set_clock(1'000'000);
  add({.id = "a", .lane = "m"});
  add({.id = "b", .lane = "m", .not_before_us = 9'000'000});
  order_.set_clock(3'000'000);
  add({.id = "c", .lane = "m"});
  add({.id = "d", .lane = ""});
  auto now = roster();
  EXPECT_FALSE(now.paused);
  EXPECT_EQ(now.waiting, 4U);
  ASSERT_EQ(now.lanes.size(), 2U);
  const auto& lane = now.lanes[now.lanes[0].model == "m" ? 0 : 1];
  EXPECT_EQ(lane.jobs, 2U);
  EXPECT_EQ(lane.oldest_us, 2'000'000);
  serve(kHost, 1);
  client_.get<bool>([&](auto then) { return order_.pause(true, then); });
  now = roster();
  EXPECT_TRUE(now.paused);
  EXPECT_EQ(now.waiting, 3U);
  uint64_t running = 0;
  for (const auto& lease : now.leases) {
    running += lease.running;
  }
  EXPECT_EQ(running, 1U);
}

// What it would be told, it is told without coming in.
TEST_F(SharedOrderTest, AJobThatWouldStandTooFarBackIsNotLetIn) {
  order_.set_clock(1'000'000);
  for (const char* const id : {"a", "b", "c"}) {
    add({.id = id, .lane = "m", .owner = 1});
  }
  SharedOrder::Job job{.id = "d", .lane = "m", .owner = 1, .last_position = 3};
  EXPECT_EQ(add(job).admission, Admission::kTooFar);
  EXPECT_EQ(add(job).position, 4);
  EXPECT_EQ(look("d").state, State::kUnknown);
  job.owner = 2;  // whose share is less used
  EXPECT_EQ(add(job).admission, Admission::kAdded);
  job = {.id = "e", .lane = "m", .owner = 1, .last_position = 0};
  const auto added = add(job);
  EXPECT_EQ(added.admission, Admission::kAdded);
  EXPECT_EQ(added.position, 5);
  job = {.id = "f", .lane = "", .owner = 3, .last_position = 1};  // all lanes' workers may take it
  EXPECT_EQ(add(job).position, 3);                                // behind "a" and "d"
  job = {.id = "g", .lane = "m", .owner = 1, .priority = 5, .last_position = 1};
  EXPECT_EQ(add(job).admission, Admission::kAdded);
  job = {.id = "h", .lane = "m", .owner = 1, .priority = 6, .last_position = SharedOrder::kNowhere};
  EXPECT_EQ(add(job).position, 1);
  EXPECT_EQ(add(job).admission, Admission::kTooFar);
}

TEST_F(SharedOrderTest, WhatAHostSaysOfAJobThatItLostIsDropped) {
  add("a");
  const auto taken = serve(kHost, 1).taken.at(0);
  EXPECT_EQ(taken.body, "b");
  client_.get<End>([&](auto then) {
    return order_.requeue({.id = "a", .host = kHost, .fence = taken.fence, .result = ""}, 0, then);
  });
  const auto again = serve(kOther, 1).taken.at(0);
  EXPECT_GT(again.fence, taken.fence);
  EXPECT_EQ(serve(kHost, 0, {{"a", taken.fence, "late"}}).ended, std::vector{End::kNotOurs});
  EXPECT_EQ(serve(kOther, 0, {{"a", again.fence, "right"}}).ended, std::vector{End::kEnded});
  EXPECT_EQ(serve(kOther, 0, {{"a", again.fence, "twice"}}).ended, std::vector{End::kOver});
  const auto known = look("a");
  EXPECT_EQ(known.state, State::kOver);
  EXPECT_EQ(known.how, 'D');
  EXPECT_EQ(known.result, "right");
}

TEST_F(SharedOrderTest, AsManyEndInOneTripAsMay) {
  std::vector<SharedOrder::Finished> finished;
  std::vector<SharedOrder::Taken> taken;
  for (size_t i = 0; i < SharedOrder::kMostFinished; ++i) {
    add("job " + std::to_string(i));
    taken.push_back(serve(kHost, 1).taken.at(0));
  }
  for (const auto& job : taken) {
    finished.push_back({job.id, job.fence, "answer"});
  }
  EXPECT_EQ(serve(kHost, 1, finished).ended, std::vector(taken.size(), End::kEnded));
}

TEST_F(SharedOrderTest, AHostThatHasNotJoinedGetsNothing) {
  add("a");
  const auto served = serve("stranger", 1);
  EXPECT_FALSE(served.known);
  EXPECT_TRUE(served.taken.empty());
  EXPECT_EQ(positions({"a"}), std::vector<int64_t>{1});
}

TEST_F(SharedOrderTest, OnlyOnce_AnEndIsAnEnd) {
  add("a");
  EXPECT_EQ(cancel("a"), End::kEnded);
  EXPECT_EQ(cancel("a"), End::kOver);
  EXPECT_EQ(cancel("never"), End::kOver);
  EXPECT_EQ(look("a").how, 'C');
}

TEST_F(SharedOrderTest, WhoTakesAJobIsToldItsHome) {
  add({.id = "a", .lane = "m", .home = kOther, .body = "x"});
  add({.id = "b", .lane = "m", .body = "y"});
  const auto taken = serve(kHost, 2).taken;
  ASSERT_EQ(taken.size(), 2U);
  EXPECT_EQ(taken[0].home, kOther);
  EXPECT_EQ(taken[1].home, "");
  EXPECT_EQ(taken[1].body, "y");
}

TEST_F(SharedOrderTest, WhoMustKnowIsTold) {
  const std::string c = "test:q1:{q}:c|";
  Channel host(server_.socket(), c + kHost);
  Channel home(server_.socket(), c + kOther);
  EXPECT_TRUE(serve(kHost, 1).taken.empty());  // it waits for a job
  add({.id = "a", .lane = "m", .home = kOther});
  EXPECT_EQ(host.next(), "wake m");
  add("unasked");  // it is woken once
  const uint64_t fence = serve(kHost, 1).taken.at(0).fence;
  EXPECT_EQ(cancel("a"), End::kEnded);
  EXPECT_EQ(home.next(), "over a");
  EXPECT_EQ(host.next(), "stop a " + std::to_string(fence));
}

TEST_F(SharedOrderTest, AScriptThatIsLostIsLoadedAgain) {
  add("a");
  server_.ask("SCRIPT FLUSH");
  EXPECT_EQ(serve(kHost, 1).taken.size(), 1U);
  EXPECT_EQ(add("b").admission, Admission::kAdded);
}

// Beyond 2^53 a double skips numbers: an order that is kept in one goes wrong there.
TEST_F(SharedOrderTest, TagsBeyondADoubleAreExact) {
  constexpr int kBehind = 8300;  // each moves the owner's tag by 2^40
  Scheduler scheduler;
  auto& queue = scheduler.set_queue({.name = "q", .max_length = 100'000});
  auto& lane = scheduler.lane(queue, "m");
  std::vector<std::unique_ptr<Scheduler::Ticket>> tickets;
  const auto add_both = [&](uint64_t owner, uint64_t cost, uint64_t weight) {
    const std::string id = "j" + std::to_string(tickets.size());
    tickets.push_back(std::make_unique<Scheduler::Ticket>());
    scheduler.add(*tickets.back(), lane, {.owner = owner, .cost = cost, .weight = weight}, 1);
    add({.id = id, .lane = "m", .owner = owner, .cost = cost, .weight = weight});
  };
  for (int i = 0; i < kBehind; ++i) {
    add_both(1, FairShare::kMaxCost, 1);
  }
  const auto take_both = [&](size_t most) {
    for (const auto& taken : serve(kHost, most).taken) {
      ASSERT_EQ(scheduler.take(lane, 1), tickets.at(std::stoul(taken.id.substr(1))).get());
    }
  };
  for (int i = 0; i < kBehind / 50; ++i) {
    take_both(50);  // virtual time is as far
  }
  for (int i = 0; i < 40; ++i) {
    add_both(2 + static_cast<uint64_t>(i % 3), 1 + static_cast<uint64_t>(i % 2), 65'536);
    add_both(1, 1, 65'535);
  }
  take_both(64);
  take_both(64);
  EXPECT_EQ(queue.waiting, 0U);
}

TEST_F(SharedOrderTest, WhatIsFullTakesNothingInAndGoesOnEnding) {
  for (const char* const id : {"a", "b", "c", "d", "e"}) {
    add(id);
  }
  const auto taken = serve(kHost, 3).taken;
  server_.ask("CONFIG SET maxmemory 1");
  bool refused = false;
  std::string why;
  order_.add({.id = "f", .lane = "m"}, [&](const SharedOrder::Answer<SharedOrder::Added>& answer) {
    refused = answer.trouble == SharedOrder::Trouble::kRefused;
    why = answer.why;
  });
  ASSERT_TRUE(client_.until([&] { return !why.empty(); })) << client_.lost();
  EXPECT_TRUE(refused);
  EXPECT_NE(why.find("OOM"), std::string::npos) << why;
  const auto served = serve(kHost, 1, {{"a", taken[0].fence, "ok"}});
  EXPECT_EQ(served.ended, std::vector{End::kEnded});
  ASSERT_EQ(served.taken.size(), 1U);
  EXPECT_EQ(served.taken[0].id, "d");
  EXPECT_EQ(client_.get<End>([&](auto then) {
    return order_.requeue({.id = "b", .host = kHost, .fence = taken[1].fence, .result = ""}, 0,
                          then);
  }),
            End::kEnded);
  EXPECT_EQ(client_.get<End>([&](auto then) {
    return order_.retry({.id = "c", .host = kHost, .fence = taken[2].fence, .result = ""}, 0,
                        Scheduler::Cause::kJobFailed, then);
  }),
            End::kEnded);
  EXPECT_EQ(cancel("e"), End::kEnded);
  EXPECT_TRUE(client_
                  .get<SharedOrder::Renewed>([&](auto then) {
                    return order_.renew(kHost, SharedOrder::Life::kStays, 60'000'000, then);
                  })
                  .known);
  EXPECT_TRUE(client_.get<bool>([&](auto then) { return order_.note_result("r", 1, then); }));
  client_.get<bool>([&](auto then) { return order_.sweep(then); });
  EXPECT_EQ(look("f").state, State::kUnknown);
  server_.ask("CONFIG SET maxmemory 0");
  EXPECT_EQ(positions({"b", "c", "f"}), (std::vector<int64_t>{1, 2, -1}));
  EXPECT_EQ(add("f").admission, Admission::kAdded);
}

class SafeOrderTest : public SharedOrderTest {
 protected:
  SafeOrderTest() : SharedOrderTest({"--appendonly", "yes", "--appendfsync", "always"}) {}
};

TEST_F(SafeOrderTest, APromiseOutlivesRedis) {
  for (const char* const id : {"a", "b", "c"}) {
    add(id);
  }
  const uint64_t fence = serve(kHost, 1).taken.at(0).fence;
  server_.kill();
  ASSERT_TRUE(client_.until([&] { return !order_.ready(); }));
  server_.start();
  EXPECT_EQ(positions({"a", "b", "c"}), (std::vector<int64_t>{0, 1, 2}));
  const auto served = serve(kHost, 1, {{"a", fence, "answer"}});
  EXPECT_EQ(served.ended, std::vector{End::kEnded});
  EXPECT_EQ(served.taken.at(0).id, "b");
}

}  // namespace
}  // namespace penstock::queue
