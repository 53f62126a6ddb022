// Answers between hosts while Redis is away, full, or slow.
#include <string>

#include "tests/unit/shared_answers/answers.h"

namespace penstock::queue {
namespace {

using Kind = Part::Kind;

class AnswersWhileRedisIsAwayTest : public AnswersTest {
 protected:
  AnswersWhileRedisIsAwayTest() : AnswersTest({.most_waiting_bytes = 100'000}) {}

  void kill() {
    server_.kill();
    ASSERT_TRUE(until([&] {
      return !runner_.up() && !home_.host.up() && !other_.host.up() &&
             !home_.host.servers.ready(kKey);
    }));
  }
  void start() {
    home_.listening = other_.listening = 0;
    server_.start();
    ASSERT_TRUE(until_up());
  }
};

TEST_F(AnswersWhileRedisIsAwayTest, GoOnOnceItIsThere) {
  const auto following = home_.reader.follow("a", {}, true, told_);
  const auto reading = other_.reader.read("b", {}, told_);
  writer_.begin("a", 3, "home-one", true);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  ASSERT_TRUE(until_kept(1));
  kill();
  writer_.say("a", Kind::kChunk, "one");
  ASSERT_TRUE(for_ms(50));
  writer_.say("a", Kind::kChunk, "two");
  start();
  writer_.end("a");
  ASSERT_TRUE(until([&] { return told_.last.number == 4; }));
  EXPECT_EQ(told_.all(), "b: c:one c:two e:");
}

TEST_F(AnswersWhileRedisIsAwayTest, WhatNobodyHeardIsFoundInTheStream) {
  const auto following = home_.reader.follow("a", {}, true, told_);
  writer_.begin("a", 3, "home-one", true);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  home_.deaf = true;  // as if it listened a moment too late
  kill();
  writer_.say("a", Kind::kChunk, "one");
  writer_.end("a");
  start();
  ASSERT_TRUE(until([&] { return writer_.waiting_bytes() == 0; }));
  home_.host.subscription.leave(kKey + "c|home-one");
  home_.reader.on_listening();  // nothing follows that would show the hole
  ASSERT_TRUE(until([&] { return told_.last.number == 3; }));
  EXPECT_EQ(told_.all(), "b: c:one e:");
}

TEST_F(AnswersWhileRedisIsAwayTest, AreNotKeptBeyondTheirBound) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  writer_.begin("a", 3, "home-one", false);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  kill();
  for (int i = 0; i < 1000; ++i) {
    writer_.say("a", Kind::kChunk, std::string(1000, 'x'));
    EXPECT_LE(writer_.waiting_bytes(), 110'000U);
  }
  EXPECT_GT(writer_.counts().dropped, 850U);
  EXPECT_LT(writer_.counts().dropped, 950U);
  start();
  writer_.end("a");
  ASSERT_TRUE(until([&] { return told_.has("lost") && writer_.waiting_bytes() == 0; }));
  EXPECT_FALSE(told_.has("e:")) << "nothing is joined with a hole";
}

TEST_F(AnswersWhileRedisIsAwayTest, ManyShortAnswersAreNotKeptBeyondTheBoundEither) {
  kill();
  for (int i = 0; i < 5000; ++i) {
    writer_.begin(std::to_string(i), 3, "", true);
    writer_.say(std::to_string(i), Kind::kNews, "");
  }
  EXPECT_LE(writer_.waiting_bytes(), 110'000U);
  EXPECT_GT(writer_.counts().dropped, 5000U);
}

TEST_F(AnswersWhileRedisIsAwayTest, WhatIsDroppedInBetweenIsAHoleInTheStream) {
  kill();
  writer_.begin("large", 1, "home-one", false);
  writer_.say("large", Kind::kChunk, std::string(50'000, 'x'));
  writer_.say("large", Kind::kChunk, std::string(45'000, 'x'));
  writer_.begin("a", 3, "", true);
  writer_.say("a", Kind::kChunk, "one");
  writer_.say("a", Kind::kChunk, std::string(6000, 'x'));
  ASSERT_EQ(writer_.counts().dropped, 1U);
  writer_.say("a", Kind::kChunk, "three");
  start();
  ASSERT_TRUE(until([&] { return writer_.waiting_bytes() == 0; }));
  const auto reading = other_.reader.read("a", {}, told_);
  ASSERT_TRUE(until([&] { return told_.has("lost"); }));
  EXPECT_EQ(told_.all(), "b: c:one lost");
}

TEST_F(AnswersWhileRedisIsAwayTest, TheStreamTakesOnceWhatIsSentAgain) {
  writer_.begin("a", 3, "", true);
  ASSERT_TRUE(until_kept(1));
  server_.stop_answering();
  writer_.say("a", Kind::kChunk, "one");
  ASSERT_TRUE(until([&] { return !runner_.servers.ready(kKey); }));
  writer_.say("a", Kind::kChunk, "two");
  server_.go_on();
  writer_.end("a");
  ASSERT_TRUE(until([&] { return writer_.waiting_bytes() == 0; }));
  const auto reading = other_.reader.read("a", {}, told_);
  ASSERT_TRUE(until([&] { return told_.last.number == 4; }));
  EXPECT_EQ(told_.all(), "b: c:one c:two e:");
  EXPECT_EQ(writer_.counts().stale, 1U) << "it was taken before its answer was lost";
}

TEST_F(AnswersWhileRedisIsAwayTest, AreNotLostForWantOfAnAnswer) {
  const auto following = home_.reader.follow("a", {}, true, told_);
  writer_.begin("a", 3, "home-one", true);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  ASSERT_TRUE(until_kept(1));
  home_.deaf = true;
  following->over();
  ASSERT_TRUE(until([&] { return home_.reader.counts().fills > 1; }));
  server_.stop_answering();
  ASSERT_TRUE(until([&] { return !home_.host.servers.ready(kKey); }));
  ASSERT_TRUE(for_ms(reading_.fill_for_ns / kNsPerMs));
  EXPECT_FALSE(told_.has("lost"));
  writer_.end("a");
  server_.go_on();
  ASSERT_TRUE(until([&] { return told_.words.size() > 1; }));
  EXPECT_EQ(told_.all(), "b: e:");
}

class AnswersOfFullMemoryTest : public AnswersTest {};

TEST_F(AnswersOfFullMemoryTest, AreToldButNotKept) {
  const auto following = home_.reader.follow("a", {}, true, told_);
  server_.ask("CONFIG SET maxmemory 1");
  writer_.begin("a", 3, "home-one", true);
  writer_.say("a", Kind::kChunk, "one");
  ASSERT_TRUE(until([&] { return writer_.counts().refused > 0; }));
  server_.ask("CONFIG SET maxmemory 0");
  writer_.end("a");
  ASSERT_TRUE(until([&] { return told_.words.size() == 3 && writer_.waiting_bytes() == 0; }));
  EXPECT_EQ(told_.all(), "b: c:one e:");
  Told late;
  const auto reading = other_.reader.read("a", {}, late);
  ASSERT_TRUE(until([&] { return late.has("lost"); }));
  EXPECT_EQ(late.all(), "lost");
}

class SlowFollowerTest : public AnswersTest {
 protected:
  SlowFollowerTest()
      : AnswersTest({}, {.most_held_bytes = 20'000, .fill_for_ns = 300 * kNsPerMs}) {}
};

TEST_F(SlowFollowerTest, IsToldFromTheStreamWhatWasNotHeld) {
  const auto following = home_.reader.follow("a", {}, true, told_);
  writer_.begin("a", 3, "home-one", true);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  following->pause();
  for (int i = 0; i < 100; ++i) {
    writer_.say("a", Kind::kChunk, std::string(1000, 'x'));
  }
  writer_.end("a");
  ASSERT_TRUE(until([&] { return writer_.waiting_bytes() == 0; }));
  ASSERT_TRUE(for_ms(20));
  EXPECT_EQ(told_.words.size(), 1U);
  following->resume();
  ASSERT_TRUE(until([&] { return told_.last.number == 102; }));
  EXPECT_EQ(told_.bytes, 100'000U);
}

TEST_F(SlowFollowerTest, WithoutAStreamIsLost) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  writer_.begin("a", 3, "home-one", false);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  following->pause();
  for (int i = 0; i < 100; ++i) {
    writer_.say("a", Kind::kChunk, std::string(1000, 'x'));
  }
  ASSERT_TRUE(until([&] { return told_.has("lost"); }));
  following->resume();
  EXPECT_EQ(told_.all(), "b: lost");
}

TEST_F(AnswersTest, AReaderMayGoBeforeItsFollowers) {
  Host host(turns_, server_.socket());
  ASSERT_TRUE(until([&] { return host.up(); }));
  std::unique_ptr<AnswerReader::Following> following, reading;
  {
    AnswerReader reader(host.servers, host.subscription, kKey, {});
    following = reader.follow("a", {1, 1}, true, told_);
    reading = reader.read("a", {}, told_);
  }
  following->pause();
  following->resume();
  following->over();
  reading->over();
  writer_.begin("a", 3, "", true);
  ASSERT_TRUE(until_kept(1));
  EXPECT_TRUE(told_.words.empty());
}

}  // namespace
}  // namespace penstock::queue
