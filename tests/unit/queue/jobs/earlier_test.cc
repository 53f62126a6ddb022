// The answer of an earlier request that asked the same, where there would be none.
#include "promise_fixture.h"

namespace penstock::queue {
namespace {

using wire::Earlier;
using wire::EarlierWhen;
using wire::FrameType;

class EarlierTest : public PromiseTest {
 protected:
  EarlierTest() {
    config_.queues[0].max_length = 1;
    apply();
  }

  static wire::Submit kept(std::string_view body = "{}", Earlier whose = Earlier::kOwn) {
    wire::Submit message = post(body);
    message.earlier = static_cast<uint64_t>(whose);
    return message;
  }
  // One that is not to run.
  static wire::Submit only(wire::Submit message = kept()) {
    message.earlier_when = static_cast<uint64_t>(EarlierWhen::kOnly);
    return message;
  }
  static wire::Submit if_busy(wire::Submit message = kept()) {
    message.earlier_when = static_cast<uint64_t>(EarlierWhen::kBusy);
    return message;
  }
  // It was made, answered, and is kept.
  void made(const std::string& text, const wire::Submit& message = kept()) {
    submit(peer_, ++last_, message);
    answer(device_, take(device_), text);
    ASSERT_EQ(reply(peer_, last_).body, text);
    settle();
  }
  Reply asked(const wire::Submit& message) {
    submit(peer_, ++last_, message);
    return reply(peer_, last_);
  }
  // One job runs, and one waits: no other finds room.
  void fill() {
    submit(other_, 1, post("{\"fills\":1}"));
    submit(other_, 2, post("{\"fills\":2}"));
  }
  size_t listed() {
    const std::string page = ask(peer_, ++last_, get("")).body;
    size_t count = 0;
    for (size_t at = 0; (at = page.find("\"id\":\"job_", at)) != page.npos; ++at) {
      ++count;
    }
    return count;
  }

  Peer peer_ = caller();
  Peer other_ = caller();
  Peer device_ = worker(1);
  uint64_t last_ = 0;
};

TEST_F(EarlierTest, AFullQueueGivesWhatTheSameWasAnsweredBefore) {
  made("the answer");
  wall_ns_ += 90 * kNsPerSec;
  fill();
  EXPECT_EQ(asked(kept()).code, "busy") << "nobody said that an earlier one may do";
  EXPECT_EQ(asked(if_busy(kept("{\"another\":1}"))).code, "busy");
  const Reply earlier = asked(if_busy());
  EXPECT_EQ(earlier.status, 200U) << earlier.code;
  EXPECT_EQ(earlier.body, "the answer");
  EXPECT_TRUE(earlier.duplicate);
  EXPECT_TRUE(earlier.earlier);
  EXPECT_FALSE(earlier.job_id.empty());
  EXPECT_NE(earlier.headers.find("Age: 90\n"), std::string::npos) << earlier.headers;
  EXPECT_EQ(dispatcher_.metrics().total(Metrics::Event::kEarlier), 1U);
}

TEST_F(EarlierTest, WhatHasRoomRuns) {
  made("the first");
  made("the second", if_busy());
  EXPECT_EQ(asked(only()).body, "the second");
}

TEST_F(EarlierTest, WhatIsNotToRunNeverDoes) {
  const Reply none = asked(only());
  EXPECT_EQ(none.status, 429U);
  EXPECT_EQ(none.code, wire::kNoEarlierAnswer);
  made("the answer");
  EXPECT_EQ(asked(only()).body, "the answer");
  EXPECT_FALSE(device_.next()) << "no worker hears of it";
  EXPECT_EQ(dispatcher_.jobs(), 0U);
}

TEST_F(EarlierTest, AnOwnersAnswersAreItsOwn) {
  made("Alice's");
  wire::Submit bobs = only();
  bobs.owner = "bob";
  EXPECT_EQ(asked(bobs).code, wire::kNoEarlierAnswer);
  EXPECT_EQ(asked(only(kept("{}", Earlier::kShared))).code, wire::kNoEarlierAnswer)
      << "what was made for one is not told to all";
}

TEST_F(EarlierTest, NobodyHasAnswersOfItsOwn) {
  wire::Submit nobodys = kept();
  nobodys.owner = "";
  nobodys.share = "192.0.2.1";
  made("somebody's", nobodys);
  EXPECT_EQ(asked(only(nobodys)).code, wire::kNoEarlierAnswer);
}

TEST_F(EarlierTest, WhatIsSharedIsToldToAllAndNotWhoseItWas) {
  made("for all", kept("{}", Earlier::kShared));
  wire::Submit bobs = only(kept("{}", Earlier::kShared));
  bobs.owner = "bob";
  const Reply told = asked(bobs);
  EXPECT_EQ(told.body, "for all");
  EXPECT_EQ(told.job_id, "");
}

TEST_F(EarlierTest, OfWhatIsSharedTheJobOfNobodyIsNobodys) {
  wire::Submit nobodys = kept("{}", Earlier::kShared);
  nobodys.owner = "";
  nobodys.share = "192.0.2.1";
  made("for all", nobodys);
  nobodys.share = "192.0.2.2";
  const Reply told = asked(only(nobodys));
  EXPECT_EQ(told.body, "for all");
  EXPECT_EQ(told.job_id, "");
}

TEST_F(EarlierTest, WhatWasOfThatOneRequestIsNotToldAgain) {
  submit(peer_, ++last_, kept());
  const uint64_t number = take(device_);
  device_.send(number, wire::Head{.status = 200,
                                  .content_type = "text/plain",
                                  .headers = "x-request-id: secret\nContent-Language: en\n"});
  device_.send(number, wire::Done{});
  device_.send(0, wire::Take{1});
  settle();
  EXPECT_TRUE(reply(peer_, last_).done);
  settle();
  const Reply earlier = asked(only());
  EXPECT_EQ(earlier.status, 200U) << "an empty answer is one, too";
  EXPECT_EQ(earlier.headers, "Content-Language: en\nAge: 0\n");
}

TEST_F(EarlierTest, OneThatFailedIsNoAnswer) {
  submit(peer_, ++last_, kept());
  const uint64_t first = take(device_);
  device_.send(first, wire::Head{.status = 400, .content_type = "text/plain"});
  say(device_, first, "no");
  device_.send(first, wire::Done{});
  device_.send(0, wire::Take{1});
  settle();
  submit(peer_, ++last_, kept());
  device_.send(take(device_), wire::Failed{.status = 502, .code = "engine_failed"});
  device_.send(0, wire::Take{1});
  settle();
  while (peer_.next()) {
  }
  EXPECT_EQ(asked(only()).code, wire::kNoEarlierAnswer);
}

TEST_F(EarlierTest, OneThatIsTooOldIsNone) {
  made("the answer");
  wire::Submit message = only();
  message.earlier_age_s = 60;
  wall_ns_ += 50 * kNsPerSec;
  EXPECT_EQ(asked(message).body, "the answer");
  wall_ns_ += 10 * kNsPerSec;
  EXPECT_EQ(asked(message).code, wire::kNoEarlierAnswer);
}

TEST_F(EarlierTest, OneThatHasExpiredIsNoneThoughItWasNotSweptYet) {
  made("the answer");
  const int64_t keep_ns = config_.queues[0].keep_results_ns;
  wall_ns_ += keep_ns + kNsPerSec;
  now_ns_ += keep_ns + kNsPerSec;
  connections_.set_now(now_ns_);
  EXPECT_EQ(asked(only()).code, wire::kNoEarlierAnswer);
}

TEST_F(EarlierTest, AnotherRequestIsAnother) {
  made("the answer");
  wire::Submit lesser = only();
  lesser.override = "{\"max_tokens\":1}";
  EXPECT_EQ(asked(lesser).code, wire::kNoEarlierAnswer);
  wire::Submit queried = only();
  queried.query = "beta=true";
  EXPECT_EQ(asked(queried).code, wire::kNoEarlierAnswer);
}

TEST_F(EarlierTest, WhoDoesNotWaitForAnAnswerGetsNone) {
  made("the answer");
  fill();
  wire::Submit later = if_busy();
  later.delay = "60";
  EXPECT_EQ(asked(later).code, "busy");
}

TEST_F(EarlierTest, ThePromisedAreKeptForThisToo) {
  wire::Submit message = async();
  message.earlier = static_cast<uint64_t>(Earlier::kOwn);
  const std::string id = promised(peer_, ++last_, message);
  answer(device_, take(device_), "promised");
  const Reply earlier = asked(only());
  EXPECT_EQ(earlier.body, "promised");
  EXPECT_EQ(earlier.job_id, id);
}

TEST_F(EarlierTest, OnlyTheNewestOfOneRequestIsKeptForOthers) {
  made("the first");
  made("the second");
  made("the third");
  EXPECT_EQ(listed(), 1U);
  EXPECT_EQ(asked(only()).body, "the third");
}

TEST_F(EarlierTest, ItIsThereAfterARestart) {
  made("the answer");
  store_.reset();
  open();
  EXPECT_EQ(asked(only()).body, "the answer");
}

TEST_F(EarlierTest, ALargeOneIsAFile) {
  submit(peer_, ++last_, kept());
  end_with_a_file(device_);
  device_.send(0, wire::Take{1});
  settle();
  EXPECT_TRUE(reply(peer_, last_).done);
  const Reply earlier = asked(only());
  ASSERT_FALSE(earlier.file.empty());
  EXPECT_EQ(std::filesystem::file_size(earlier.file), 2 * Store::kInlineBytes);
  submit(peer_, ++last_, kept());
  answer(device_, take(device_), "small");
  EXPECT_TRUE(reply(peer_, last_).done);
  settle();
  EXPECT_EQ(asked(only()).body, "small") << "another has taken its place";
  EXPECT_TRUE(std::filesystem::exists(earlier.file)) << "whoever was told of it opens it now";
  store_->sweep(dispatcher_.wall_ms() + 61'000);
  settle();
  EXPECT_FALSE(std::filesystem::exists(earlier.file));
}

TEST_F(EarlierTest, OneThatIsDroppedIsGone) {
  made("the answer");
  const std::string page = ask(peer_, ++last_, get("")).body;
  const size_t at = page.find("job_");
  bool dropped = false;
  store_->drop(*parse_job_id(page.substr(at, JobId::kBytes)), [&](bool it) { dropped = it; });
  settle();
  EXPECT_TRUE(dropped);
  EXPECT_EQ(asked(only()).code, wire::kNoEarlierAnswer);
}

TEST_F(EarlierTest, TheDiskHoldsUpNobodyOnAccountOfOthers) {
  submit(peer_, ++last_, kept());
  const uint64_t number = take(device_);
  device_.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  say(device_, number, "the answer");
  device_.send(number, wire::Done{});
  turn();
  EXPECT_TRUE(reply(peer_, last_).done) << "before the store has said a word";
  EXPECT_EQ(dispatcher_.jobs(), 0U);
}

TEST_F(EarlierTest, WhatIsKeptForOthersLeavesHalfOfTheRoom) {
  made("the first");
  store_->set_max_bytes(static_cast<int64_t>(store_->figures().bytes), 0);
  made("the second");
  EXPECT_EQ(asked(only()).body, "the first") << "it stays, as there is no room for another";
  store_->set_max_bytes(int64_t{1} << 30, 1000);
  made("the third");
  EXPECT_EQ(asked(only()).body, "the third") << "it takes the room of the first";
  EXPECT_EQ(listed(), 1U);
  made("another's", kept("{\"b\":1}"));
  EXPECT_EQ(listed(), 1U) << "half of its share is taken";
}

TEST_F(EarlierTest, WhatIsKeptForOthersGivesWayBeforeWhatIsPromised) {
  config_.limits.max_unwritten_bytes = 1 << 20;
  apply();
  submit(peer_, 1, kept());
  const uint64_t number = take(device_);
  files_.fail(FaultFiles::Call::kWrite, ENOSPC);
  device_.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  for (int i = 0; i < 8; ++i) {
    say(device_, number, std::string(100'000, 'x'));
  }
  EXPECT_GT(store_->pending_bytes(), 1U << 19);
  EXPECT_LE(store_->pending_bytes(), (1U << 19) + 100'000);
  files_.heal();
}

TEST_F(EarlierTest, WhoReadsItFromTheDiskHasItHoweverLittleRoomThereIs) {
  Peer late = caller();
  wire::Submit message = kept();
  message.dedupe = 1;
  submit(peer_, 1, message);
  const uint64_t number = take(device_);
  device_.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  for (int i = 0; i < 20; ++i) {
    say(device_, number, std::string(Store::kInlineBytes, 'a'));
    settle();
  }
  store_->set_max_bytes(1, 0);
  submit(late, 1, message);
  device_.send(number, wire::Done{});
  settle();
  const Reply told = reply(late, 1);
  EXPECT_EQ(told.status, 200U) << told.code;
  EXPECT_TRUE(std::filesystem::exists(told.file)) << told.file;
}

}  // namespace
}  // namespace penstock::queue
