#include "shared/redis/places.h"

#include <gtest/gtest.h>

#include "shared/redis/answer.h"

namespace penstock::redis {
namespace {

// What a server would have sent.
class Answer {
 public:
  explicit Answer(std::string_view bytes) {
    redisReader* reader = redisReaderCreate();
    redisReaderFeed(reader, bytes.data(), bytes.size());
    redisReaderGetReply(reader, &reply_);
    redisReaderFree(reader);
  }
  ~Answer() { freeReplyObject(reply_); }
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;
  operator const redisReply&() const {  // NOLINT(google-explicit-constructor)
    return *static_cast<redisReply*>(reply_);
  }

 private:
  void* reply_ = nullptr;
};

const Address kAsked{"", "10.0.0.1", 7000};

TEST(SlotTest, IsTheClustersOwn) {  // CLUSTER KEYSLOT says the same
  EXPECT_EQ(slot_of("123456789"), 0x31C3U);
  EXPECT_EQ(slot_of(""), 0U);
  EXPECT_EQ(slot_of("foo"), 12182U);
  EXPECT_EQ(slot_of("a{foo}b{bar}"), 12182U);
  EXPECT_EQ(slot_of("{}foo"), slot_of("{}foo"));
  EXPECT_NE(slot_of("{}foo"), 12182U) << "nothing between the braces: the whole key counts";
  EXPECT_NE(slot_of("{foo"), 12182U);
}

TEST(PlacesTest, AMasterHasAllSlots) {
  const Answer answer("*2\r\n$3\r\n::1\r\n$4\r\n6379\r\n");
  const auto places = read_master(answer);
  ASSERT_TRUE(places);
  EXPECT_EQ(places->servers, (std::vector<Address>{{"", "::1", 6379}}));
  ASSERT_EQ(places->ranges.size(), 1U);
  EXPECT_EQ(places->ranges[0].last, kSlots - 1);
}

TEST(PlacesTest, EachMasterOfAClusterHasItsSlots) {
  const Answer answer(
      "*3\r\n"
      "*3\r\n:0\r\n:5460\r\n*2\r\n$8\r\n10.0.0.1\r\n:1\r\n"
      "*4\r\n:5461\r\n:10922\r\n*3\r\n$8\r\n10.0.0.2\r\n:2\r\n$1\r\na\r\n*2\r\n$1\r\nx\r\n:9\r\n"
      "*3\r\n:10923\r\n:16383\r\n*2\r\n$8\r\n10.0.0.1\r\n:1\r\n");
  const auto places = read_slots(answer, kAsked);
  ASSERT_TRUE(places);
  EXPECT_EQ(places->servers, (std::vector<Address>{{"", "10.0.0.1", 1}, {"", "10.0.0.2", 2}}));
  ASSERT_EQ(places->ranges.size(), 3U);
  EXPECT_EQ(places->ranges[2].server, 0U);
}

TEST(PlacesTest, ANodeThatKnowsNoAddressIsWhereItWasAsked) {
  for (const char* host : {"$0\r\n\r\n", "$-1\r\n"}) {
    const Answer answer(std::string("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n") + host + ":7001\r\n");
    const auto places = read_slots(answer, kAsked);
    ASSERT_TRUE(places);
    EXPECT_EQ(places->servers, (std::vector<Address>{{"", "10.0.0.1", 7001}}));
  }
}

TEST(PlacesTest, SlotsOfNobodyAreNobodys) {
  const Answer answer("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$1\r\n?\r\n:7001\r\n");
  EXPECT_FALSE(read_slots(answer, kAsked));
}

TEST(PlacesTest, WhatIsNoAnswerIsNone) {
  for (const char* bytes : {"*0\r\n", ":1\r\n", "$1\r\na\r\n", "*1\r\n:1\r\n", "*1\r\n*0\r\n",
                            "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
                            "*1\r\n*3\r\n:9\r\n:1\r\n*2\r\n$1\r\na\r\n:1\r\n",
                            "*2\r\n$1\r\na\r\n$5\r\n99999\r\n", "*2\r\n$0\r\n\r\n$1\r\n1\r\n",
                            "*2\r\n$3\r\na\nb\r\n$1\r\n1\r\n", "*2\r\n$1\r\na\r\n$2\r\n1x\r\n"}) {
    const Answer answer(bytes);
    EXPECT_FALSE(read_slots(answer, kAsked)) << bytes;
    EXPECT_FALSE(read_master(answer)) << bytes;
  }
}

TEST(MovedTest, IsWhereTheServerSays) {
  const auto moved = read_moved("MOVED 3999 127.0.0.1:6381", kAsked);
  ASSERT_TRUE(moved);
  EXPECT_FALSE(moved->for_now);
  EXPECT_EQ(moved->slot, 3999U);
  EXPECT_EQ(moved->server, (Address{"", "127.0.0.1", 6381}));
  EXPECT_TRUE(read_moved("ASK 1 ::1:6381", kAsked)->for_now);
  EXPECT_EQ(read_moved("ASK 1 ::1:6381", kAsked)->server.host, "::1");
  EXPECT_EQ(read_moved("MOVED 1 :6381", kAsked)->server.host, "10.0.0.1");
}

TEST(MovedTest, NoPlaceIsNone) {
  for (const char* error :
       {"MOVED", "MOVED ", "MOVED 1", "MOVED 16384 a:1", "MOVED x a:1", "MOVED 1 a:0",
        "MOVED 1 a:99999", "MOVED 1 a", "ASKING 1 a:1", "ERR", "MOVED:1 2", "MOVED -1 a:1"}) {
    EXPECT_FALSE(read_moved(error, kAsked)) << error;
  }
}

TEST(AddressTest, ReadsAsItIsWritten) {
  EXPECT_EQ(text_of(Address{"", "::1", 1}), "[::1]:1");
  EXPECT_EQ(text_of(Address{"", "redis.test", 6379}), "redis.test:6379");
  EXPECT_EQ(text_of(Address{"/run/r", "", 0}), "unix:/run/r");
}

}  // namespace
}  // namespace penstock::redis
