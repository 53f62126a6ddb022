// Answers between hosts while Redis is there: order, holes, restarts, who hears what.
#include <string>
#include <vector>

#include "tests/unit/shared_answers/answers.h"

namespace penstock::queue {
namespace {

using Kind = Part::Kind;

TEST_F(AnswersTest, AreToldInOrder) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  writer_.begin("a", 7, "home-one", false);
  writer_.say("a", Kind::kHead, "head");
  writer_.say("a", Kind::kChunk, "one");
  ASSERT_TRUE(until([&] { return told_.words.size() == 3; }));
  writer_.say("a", Kind::kNews, "news");
  writer_.say("a", Kind::kChunk, "two");
  writer_.end("a", "done");
  ASSERT_TRUE(until([&] { return told_.words.size() == 6; }));
  EXPECT_EQ(told_.all(), "b: h:head c:one n:news c:two e:done");
  EXPECT_EQ(following->told(), (PartPlace{7, 6}));
  EXPECT_EQ(stream("a"), "") << "nobody may resume it";
}

TEST_F(AnswersTest, AreToldToTheHomeAlone) {
  Told other;
  const auto one = home_.reader.follow("a", {}, false, told_);
  const auto two = other_.reader.follow("b", {}, false, other);
  const auto three = other_.reader.follow("a", {}, false, other);
  writer_.begin("a", 1, "home-one", false, "a");
  writer_.begin("b", 2, "home-two", false, "b");
  ASSERT_TRUE(until([&] { return !told_.words.empty() && !other.words.empty(); }));
  EXPECT_EQ(told_.all(), "b:a");
  EXPECT_EQ(other.all(), "b:b");
}

TEST_F(AnswersTest, OfManyJobsGoInOneMessage) {
  constexpr int kJobs = 100;
  std::vector<std::unique_ptr<AnswerReader::Following>> all;
  for (int i = 0; i < kJobs; ++i) {
    all.push_back(home_.reader.follow(std::to_string(i), {}, false, told_));
    writer_.begin(std::to_string(i), 1, "home-one", false);
    writer_.say(std::to_string(i), Kind::kChunk, "x");
  }
  ASSERT_TRUE(until([&] { return told_.words.size() == 2 * kJobs; }));
  EXPECT_EQ(writer_.counts().messages, 1U);
}

TEST_F(AnswersTest, ALargeChunkComesInPieces) {
  const auto following = home_.reader.follow("a", {}, true, told_);
  writer_.begin("a", 1, "home-one", true);
  writer_.say("a", Kind::kChunk, std::string(300'000, 'x'));
  writer_.end("a");
  ASSERT_TRUE(until([&] { return told_.last.number == 7; }));
  EXPECT_EQ(told_.bytes, 300'000U);
}

TEST_F(AnswersTest, NothingIsGatheredForLong) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  writer_.begin("a", 1, "home-one", false);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  const int64_t begin_ns = monotonic_ns();
  for (size_t i = 2; i < 22; ++i) {
    writer_.say("a", Kind::kChunk, "x");
    ASSERT_TRUE(until([&] { return told_.words.size() == i; }));
  }
  EXPECT_GE(monotonic_ns() - begin_ns, 19 * 5 * kNsPerMs) << "it is gathered";
  EXPECT_EQ(writer_.counts().messages, 21U);
}

TEST_F(AnswersTest, AHoleIsFilledFromTheStream) {
  const auto following = home_.reader.follow("a", {}, true, told_);
  writer_.begin("a", 3, "home-one", true);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  home_.deaf = true;
  for (const char* const chunk : {"one", "two", "three"}) {
    writer_.say("a", Kind::kChunk, chunk);
    const int before = home_.missed;
    ASSERT_TRUE(until([&] { return home_.missed > before; }));
  }
  home_.deaf = false;
  writer_.say("a", Kind::kChunk, "four");
  writer_.end("a");
  ASSERT_TRUE(until([&] { return told_.last.number == 6; }));
  EXPECT_EQ(told_.all(), "b: c:one c:two c:three c:four e:");
  EXPECT_GT(home_.reader.counts().fills, 0U);
}

TEST_F(AnswersTest, AHoleOfAJobThatNobodyMayResumeIsALoss) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  writer_.begin("a", 3, "home-one", false);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  home_.deaf = true;
  writer_.say("a", Kind::kChunk, "one");
  ASSERT_TRUE(until([&] { return home_.missed == 1; }));
  home_.deaf = false;
  writer_.say("a", Kind::kChunk, "two");
  writer_.end("a");
  ASSERT_TRUE(until([&] { return told_.has("lost"); }));
  ASSERT_TRUE(for_ms(15));
  EXPECT_EQ(told_.all(), "b: lost") << "nothing is joined with a hole";
  writer_.begin("a", 4, "home-one", false);
  ASSERT_TRUE(until([&] { return told_.words.size() == 4; }));
  EXPECT_EQ(told_.all(), "b: lost !4 b:");
}

TEST_F(AnswersTest, WhoListensAgainMayHaveMissedTheLastPart) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  writer_.begin("a", 3, "home-one", false);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  home_.reader.on_listening();
  EXPECT_EQ(told_.all(), "b: lost") << "and nothing follows that would show it";
  home_.reader.on_listening();  // once more
  EXPECT_EQ(told_.all(), "b: lost");
}

TEST_F(AnswersTest, WhoListensAgainHasMissedNothingOfWhatHasNotBegun) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  home_.reader.on_listening();
  EXPECT_EQ(told_.all(), "");
  writer_.begin("a", 3, "home-one", false);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  EXPECT_EQ(told_.all(), "b:");
}

TEST_F(AnswersTest, WhoListensAgainLooksForWhatItMissedSomeAtATime) {
  constexpr size_t kJobs = 200;
  size_t lost = 0;
  std::vector<Told> told(kJobs);
  std::vector<std::unique_ptr<AnswerReader::Following>> all;
  for (size_t i = 0; i < kJobs; ++i) {
    told[i].on_told = [&, i] { lost += told[i].words.back() == "lost" ? 1 : 0; };
    all.push_back(home_.reader.follow(std::to_string(i), {3, 1}, false, told[i]));
  }
  home_.reader.on_listening();
  EXPECT_EQ(lost, 64U);
  all[99].reset();  // the last, by name
  ASSERT_TRUE(until([&] { return lost == kJobs - 1; }));
  EXPECT_EQ(told[99].all(), "");
}

TEST_F(AnswersTest, AHoleThatIsNotInTheStreamIsALoss) {
  const auto following = home_.reader.follow("a", {}, true, told_);
  writer_.begin("a", 3, "home-one", true);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  ASSERT_TRUE(until_kept(1));
  home_.deaf = true;
  writer_.say("a", Kind::kChunk, "one");
  ASSERT_TRUE(until_kept(2));
  ASSERT_TRUE(until([&] { return home_.missed == 1; }));
  server_.ask("DEL " + kKey + "e|a");
  home_.deaf = false;
  writer_.say("a", Kind::kChunk, "two");
  ASSERT_TRUE(until([&] { return told_.has("lost"); }));
  EXPECT_EQ(told_.all(), "b: lost");
}

TEST_F(AnswersTest, AnotherFenceStartsAnew) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  writer_.begin("a", 3, "home-one", false, "first");
  writer_.say("a", Kind::kChunk, "one");
  ASSERT_TRUE(until([&] { return told_.words.size() == 2; }));
  Host another(turns_, server_.socket());
  AnswerWriter later(another.servers, kKey, {});
  ASSERT_TRUE(until([&] { return another.up(); }));
  later.begin("a", 4, "home-one", false, "second");
  later.end("a");
  ASSERT_TRUE(until([&] { return told_.words.size() == 5; }));
  writer_.say("a", Kind::kChunk, "late");
  writer_.end("a");
  ASSERT_TRUE(until([&] { return home_.reader.counts().repeated == 2; }));
  EXPECT_EQ(told_.all(), "b:first c:one !4 b:second e:") << "an old fence says nothing";
}

TEST_F(AnswersTest, TheStreamTakesNoPartsOfAnOldFence) {
  writer_.begin("a", 4, "", true, "new");
  ASSERT_TRUE(until_kept(1));
  writer_.begin("a", 3, "", true, "old");
  ASSERT_TRUE(until([&] { return writer_.counts().stale == 1; }));
  EXPECT_NE(stream("a").find("new"), std::string::npos);
  EXPECT_EQ(stream("a").find("old"), std::string::npos);
}

TEST_F(AnswersTest, PartsThatWereToldAreNotToldAgain) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  std::string message;
  append_to_message(message, "a", {{1, 1}, Kind::kBegun, "one"});
  append_to_message(message, "a", {{1, 2}, Kind::kChunk, "two"});
  home_.reader.on_message(message);
  home_.reader.on_message(message);
  EXPECT_EQ(told_.all(), "b:one c:two");
  EXPECT_EQ(home_.reader.counts().repeated, 2U);
}

TEST_F(AnswersTest, AnotherHostReadsTheStreamAsItGrows) {
  writer_.begin("a", 3, "", true);
  writer_.say("a", Kind::kChunk, "one");
  ASSERT_TRUE(until_kept(1));
  const auto reading = other_.reader.read("a", {}, told_);
  ASSERT_TRUE(until([&] { return told_.words.size() == 2; }));
  ASSERT_TRUE(for_ms(50));
  const uint64_t fills = other_.reader.counts().fills;
  writer_.say("a", Kind::kChunk, "two");
  const int64_t begin_ns = monotonic_ns();
  ASSERT_TRUE(until([&] { return told_.words.size() == 3; }));
  EXPECT_LT(monotonic_ns() - begin_ns, reading_.look_every_ns / 2);
  EXPECT_EQ(other_.reader.counts().fills, fills + 1);
  writer_.end("a", "done");
  ASSERT_TRUE(until([&] { return told_.words.size() == 4; }));
  EXPECT_EQ(told_.all(), "b: c:one c:two e:done");
}

TEST_F(AnswersTest, AnEventsReaderGoesOnBehindItsLastEvent) {
  writer_.begin("a", 3, "", true);
  writer_.say("a", Kind::kChunk, "one");
  writer_.say("a", Kind::kChunk, "two");
  ASSERT_TRUE(until_kept(1));
  writer_.end("a");
  ASSERT_TRUE(until_kept(2));
  const auto reading = other_.reader.read("a", *parse_place("3-2"), told_);
  ASSERT_TRUE(until([&] { return told_.words.size() == 2; }));
  EXPECT_EQ(told_.all(), "c:two e:") << "though one entry has both";
}

TEST_F(AnswersTest, OfAJobThatEndsAtOnceTheStreamGetsNothing) {
  const auto reading = other_.reader.read("a", {}, told_);
  ASSERT_TRUE(for_ms(20));
  writer_.begin("a", 3, "", true);
  writer_.say("a", Kind::kChunk, "one");
  writer_.end("a", "done");
  EXPECT_EQ(writer_.waiting_bytes(), 0U);
  EXPECT_EQ(writer_.next_event(), INT64_MAX);
  ASSERT_TRUE(server_.ask("PUBLISH " + kKey + "e|a over"));  // as the script that ends it does
  ASSERT_TRUE(until([&] { return told_.has("over"); }));
  EXPECT_EQ(told_.all(), "over");
}

TEST_F(AnswersTest, AReaderMayStartBeforeTheJob) {
  const auto reading = other_.reader.read("a", {}, told_);
  ASSERT_TRUE(for_ms(20));
  writer_.begin("a", 3, "", true);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
}

TEST_F(AnswersTest, AReaderHearsOfARestartFromTheStream) {
  writer_.begin("a", 3, "", true, "first");
  ASSERT_TRUE(until_kept(1));
  const auto reading = other_.reader.read("a", {}, told_);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  writer_.begin("a", 4, "", true, "second");
  ASSERT_TRUE(until_kept(2));
  writer_.end("a");
  ASSERT_TRUE(until([&] { return told_.words.size() == 4; }));
  EXPECT_EQ(told_.all(), "b:first !4 b:second e:");
}

TEST_F(AnswersTest, ALongStreamIsReadInSteps) {
  constexpr size_t kParts = 400;
  writer_.begin("a", 3, "", true);
  for (size_t i = 0; i < kParts; ++i) {
    writer_.say("a", Kind::kChunk, std::string(2000, 'x'));
  }
  writer_.end("a");
  ASSERT_TRUE(until([&] { return writer_.waiting_bytes() == 0; }));
  const int64_t begin_ns = monotonic_ns();
  const auto reading = other_.reader.read("a", {}, told_);
  ASSERT_TRUE(until([&] { return told_.last.number == kParts + 2; }));
  EXPECT_EQ(told_.bytes, kParts * 2000);
  EXPECT_GT(other_.reader.counts().fills, 1U);
  EXPECT_LT(monotonic_ns() - begin_ns, reading_.look_every_ns) << "one step follows the other";
}

TEST_F(AnswersTest, OfALongAnswerTheStreamKeepsTheEnd) {
  constexpr size_t kParts = 200;
  writer_.begin("a", 3, "", true);
  for (size_t i = 0; i < kParts; ++i) {
    writer_.say("a", Kind::kChunk, std::string(20'000, 'x'));
    if (i % 50 == 0) {
      ASSERT_TRUE(for_ms(5));
    }
  }
  writer_.end("a");
  ASSERT_TRUE(until([&] { return writer_.waiting_bytes() == 0; }));
  EXPECT_LT(std::stoul(*server_.ask("MEMORY USAGE " + kKey + "e|a SAMPLES 0")), 1'500'000U);
  const auto reading = other_.reader.read("a", {}, told_);
  ASSERT_TRUE(until([&] { return told_.has("lost"); }));
  EXPECT_EQ(told_.all(), "lost") << "what is trimmed is a hole";
  Told late;
  const auto end = other_.reader.read("a", {3, kParts - 5}, late);
  ASSERT_TRUE(until([&] { return late.last.number == kParts + 2; }));
}

TEST_F(AnswersTest, AStreamGoesSomeTimeAfterItsLastEntry) {
  writer_.begin("a", 3, "", true);
  ASSERT_TRUE(until_kept(1));
  const int64_t left_ms = std::stol(*server_.ask("PTTL " + kKey + "e|a"));
  EXPECT_GT(left_ms, 3'500'000);
  EXPECT_LE(left_ms, 3'600'000);
}

TEST_F(AnswersTest, AnEndWithoutItsLastPartIsALoss) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  writer_.begin("a", 3, "home-one", false);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  following->over();
  writer_.say("a", Kind::kChunk, "behind it");
  ASSERT_TRUE(until([&] { return told_.has("lost"); }));
  EXPECT_EQ(told_.all(), "b: c:behind it lost");
}

TEST_F(AnswersTest, AnEndThatWasMissedIsFoundInTheStream) {
  const auto following = home_.reader.follow("a", {}, true, told_);
  writer_.begin("a", 3, "home-one", true);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  home_.deaf = true;
  writer_.end("a", "done");
  following->over();
  ASSERT_TRUE(until([&] { return told_.words.size() == 2; }));
  EXPECT_EQ(told_.all(), "b: e:done");
}

TEST_F(AnswersTest, OfAJobThatHasSaidItsLastPartTheEndIsNoLoss) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  writer_.begin("a", 3, "home-one", false);
  writer_.end("a");
  ASSERT_TRUE(until([&] { return told_.words.size() == 2; }));
  following->over();
  ASSERT_TRUE(for_ms(600));  // beyond the grace
  EXPECT_EQ(told_.all(), "b: e:");
}

TEST_F(AnswersTest, WhatIsPublishedBeforeARequestIsHeardBeforeIt) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  writer_.begin("a", 3, "home-one", false);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  writer_.say("a", Kind::kChunk, "x");
  writer_.end("a");  // without a turn of the loop
  EXPECT_EQ(writer_.next_event(), INT64_MAX) << "it is on its way";
}

TEST_F(AnswersTest, WhoDoesNotFollowIsNotTold) {
  auto following = home_.reader.follow("a", {}, true, told_);
  writer_.begin("a", 3, "home-one", true);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  following.reset();
  writer_.say("a", Kind::kChunk, "x");
  ASSERT_TRUE(until([&] { return home_.reader.counts().unwanted == 1; }));
  EXPECT_EQ(told_.words.size(), 1U);
}

TEST_F(AnswersTest, AFollowerMayLeaveWhileItIsTold) {
  for (const bool live : {true, false}) {
    const std::string id = live ? "live" : "kept";
    Told told;
    std::unique_ptr<AnswerReader::Following> following;
    told.on_told = [&] { following.reset(); };
    if (live) {
      following = home_.reader.follow(id, {}, true, told);
    }
    writer_.begin(id, 3, "home-one", true);
    writer_.say(id, Kind::kChunk, "x");
    ASSERT_TRUE(until([&] { return writer_.waiting_bytes() == 0; }));
    if (!live) {
      following = home_.reader.read(id, {}, told);
    }
    ASSERT_TRUE(until([&] { return following == nullptr; }));
    ASSERT_TRUE(for_ms(10));
    EXPECT_EQ(told.words.size(), 1U);
  }
}

TEST_F(AnswersTest, HostileMessagesChangeNothing) {
  const auto following = home_.reader.follow("a", {}, true, told_);
  writer_.begin("a", 3, "home-one", true);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  for (const std::string& message :
       {std::string("parts "), std::string("parts"), std::string(""), std::string("over a"),
        std::string("parts \001a\003\377\377\377\377\377\377\377\377\377\377\377"),
        std::string("parts \001a\003\002\003\377\377\377\377\177"), std::string("parts \000a", 8),
        "parts " + std::string(100'000, '\377')}) {
    home_.reader.on_message(message);
  }
  EXPECT_EQ(home_.reader.counts().malformed, 4U);
  server_.ask("XADD " + kKey + "e|a 3-9 p nonsense");
  server_.ask("PUBLISH " + kKey + "c|home-one parts");
  writer_.say("a", Kind::kChunk, "one");
  ASSERT_TRUE(until([&] { return told_.words.size() == 2; }));
  EXPECT_EQ(told_.all(), "b: c:one");
  server_.ask("SET " + kKey + "e|b text");
  Told other;
  const auto reading = other_.reader.read("b", {}, other);
  ASSERT_TRUE(until([&] { return other_.reader.counts().malformed == 1; }));
  EXPECT_TRUE(other.words.empty());
}

TEST_F(AnswersTest, APausedFollowerIsToldLater) {
  const auto following = home_.reader.follow("a", {}, false, told_);
  writer_.begin("a", 3, "home-one", false);
  ASSERT_TRUE(until([&] { return told_.words.size() == 1; }));
  following->pause();
  writer_.say("a", Kind::kChunk, "one");
  writer_.end("a");
  ASSERT_TRUE(for_ms(20));
  following->over();
  ASSERT_TRUE(for_ms(600));  // beyond the grace
  EXPECT_EQ(told_.words.size(), 1U);
  following->resume();
  EXPECT_EQ(told_.all(), "b: c:one e:");
}

TEST_F(AnswersTest, AFollowerMayPauseAtEachPart) {
  constexpr size_t kParts = 100;
  std::unique_ptr<AnswerReader::Following> following;
  bool paused = false;
  told_.on_told = [&] {
    EXPECT_FALSE(paused);
    following->pause();
    paused = true;
  };
  writer_.begin("a", 3, "", true);
  for (size_t i = 0; i < kParts; ++i) {
    writer_.say("a", Kind::kChunk, "x");
  }
  ASSERT_TRUE(until_kept(1));
  following = other_.reader.read("a", {}, told_);
  for (size_t i = 1; i <= kParts + 1; ++i) {
    ASSERT_TRUE(until([&] { return paused; }));
    EXPECT_EQ(told_.words.size(), i);
    paused = false;
    following->resume();
  }
}

}  // namespace
}  // namespace penstock::queue
