#include <gtest/gtest.h>

#include "shared/http/http_date.h"
#include "shared/http/idempotency_key.h"
#include "shared/http/prefer.h"
#include "shared/http/query.h"

namespace penstock::http {
namespace {

TEST(PreferTest, ReadsWhatIsPreferred) {
  EXPECT_TRUE(parse_prefer("respond-async").respond_async);
  const Prefer both = parse_prefer("Respond-Async, WAIT = \"10\"");
  EXPECT_TRUE(both.respond_async);
  EXPECT_EQ(both.wait_s, 10U);
  EXPECT_EQ(parse_prefer("wait=5, wait=7").wait_s, 5U);
  EXPECT_TRUE(parse_prefer("handling=lenient; a=\"x, y\", respond-async;z").respond_async);
}

TEST(PreferTest, WhatIsUnknownOrMalformedIsPassedOver) {
  for (const char* text : {"", ",", "respond-asynchronously", "respond-async=1",
                           "x=\"respond-async", "\"respond-async\"", "wait=respond-async"}) {
    EXPECT_FALSE(parse_prefer(text).respond_async) << text;
  }
  for (const char* text :
       {"wait", "wait=", "wait=-1", "wait=1.5", "wait=+5", "wait=\"\"", "wait=0x5"}) {
    EXPECT_FALSE(parse_prefer(text).wait_s) << text;
  }
}

// RFC 7240: lists, their white space, parameters, quoted words; the first of one name counts.
TEST(PreferTest, ReadsAListAsTheRfcWritesIt) {
  EXPECT_EQ(parse_prefer("wait=4294967296").wait_s, UINT32_MAX) << "more than can be counted";
  EXPECT_EQ(parse_prefer("wait=" + std::string(400, '9')).wait_s, UINT32_MAX);
  EXPECT_EQ(parse_prefer("wait=0000000000000000005").wait_s, 5U);
  EXPECT_EQ(parse_prefer("wait=soon, wait=7").wait_s, 7U) << "what is no wait is none";
  EXPECT_EQ(parse_prefer("a;wait=5, wait=6;wait=7").wait_s, 6U) << "parameters are another's";
  EXPECT_EQ(parse_prefer("\twait\t=\t10\t;x").wait_s, 10U);
  EXPECT_EQ(parse_prefer(",, wait=1 ,\t,").wait_s, 1U);
  EXPECT_TRUE(parse_prefer("respond-async=\"\"").respond_async) << "as without a value";
  EXPECT_TRUE(parse_prefer("a=\"\\\", \", respond-async").respond_async);
  EXPECT_FALSE(parse_prefer("a=\"respond-async, b\"").respond_async);
  EXPECT_FALSE(parse_prefer("r\xC3\xA9spond-async").respond_async);
  EXPECT_TRUE(parse_prefer("\xFF\x80, respond-async").respond_async);
}

TEST(DelayTest, IsWholeSeconds) {
  EXPECT_EQ(parse_delay_seconds("0"), 0);
  EXPECT_EQ(parse_delay_seconds("3600"), 3600);
  for (const char* text :
       {"", " 1", "-1", "+1", "1s", "1.5", "315360001", "99999999999999999999"}) {
    EXPECT_FALSE(parse_delay_seconds(text)) << text;
  }
}

TEST(IdempotencyKeyTest, IsAStructuredString) {
  EXPECT_EQ(*parse_idempotency_key("\"a-1\""), "a-1");
  EXPECT_EQ(*parse_idempotency_key(" \"a\\\"\\\\b\" "), "a\"\\b");
  EXPECT_EQ(*parse_idempotency_key("\"a\";p=1"), "a");
  EXPECT_EQ(parse_idempotency_key('"' + std::string(255, 'k') + '"')->size(), 255U);
}

TEST(IdempotencyKeyTest, WhatIsWrongIsSaid) {
  const auto error = [](const std::string& text) {
    const auto key = parse_idempotency_key(text);
    return key ? std::string("accepted") : key.error().message;
  };
  EXPECT_NE(error("abc").find("does not begin with a quote"), std::string::npos);
  EXPECT_NE(error("").find("does not begin with a quote"), std::string::npos);
  EXPECT_NE(error("\"abc").find("does not end with a quote"), std::string::npos);
  EXPECT_NE(error("\"a\" b").find("goes on"), std::string::npos);
  EXPECT_NE(error("\"a\\n\"").find("backslash"), std::string::npos);
  EXPECT_NE(error("\"a\\").find("backslash"), std::string::npos);
  EXPECT_NE(error("\"a\tb\"").find("printable"), std::string::npos);
  EXPECT_NE(error("\"\xC3\xA4\"").find("printable"), std::string::npos);
  EXPECT_NE(error("\"\"").find("empty"), std::string::npos);
  EXPECT_NE(error('"' + std::string(256, 'k') + '"').find("longer than 255"), std::string::npos);
}

// RFC 9651, 4.2.3: an item is a bare item and its parameters, and nothing else.
TEST(IdempotencyKeyTest, ItsParametersAreReadAsStrictly) {
  for (const char* good : {";a", ";a;b", ";  a=1", ";*a-_.*9=x", ";a=?0", ";a=-1.250",
                           ";a=\"\\\\\"", ";a=:aGk=:", ";a=:aGk:", ";a=::", ";a=@-1",
                           ";a=%\"%c3%a9\"", ";a=*t:/x", ";a;a=2  ", ";a=999999999999999"}) {
    EXPECT_TRUE(parse_idempotency_key("\"k\"" + std::string(good))) << good;
  }
  for (const char* bad : {";",
                          ";A",
                          ";1",
                          ";a=",
                          ";a= 1",
                          " ;a",
                          ";a ;b",
                          ";a =1",
                          ";\ta",
                          ";a=1.",
                          ";a=.1",
                          ";a=1.2345",
                          ";a=1234567890123.1",
                          ";a=1000000000000000",
                          ";a=-",
                          ";a=--1",
                          ";a=?2",
                          ";a=?",
                          ";a=\"x",
                          ";a=\"\\n\"",
                          ";a=:a:",
                          ";a=:aGk",
                          ";a=:a*==:",
                          ";a=:a=Gk:",
                          ";a=@1.5",
                          ";a=@",
                          ";a=%x",
                          ";a=%\"%C3%A9\"",
                          ";a=%\"%c3\"",
                          ";a=%\"%a\"",
                          ";a=%\"\xC3\xA9\"",
                          ";a=(1 2)",
                          ";a,b",
                          ", \"l\"",
                          ";a=\xC3\xA9",
                          "\t"}) {
    EXPECT_FALSE(parse_idempotency_key("\"k\"" + std::string(bad))) << bad;
  }
  EXPECT_FALSE(parse_idempotency_key("\t\"k\""));
  EXPECT_FALSE(parse_idempotency_key("'k'"));
  EXPECT_FALSE(parse_idempotency_key("\"a\x7F\""));
  EXPECT_FALSE(parse_idempotency_key(std::string("\"a\0\"", 4)));
}

TEST(HttpDateTest, ReadsItsThreeForms) {
  constexpr int64_t kSeconds = 784111777;  // RFC 9110's own example
  EXPECT_EQ(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), kSeconds);
  EXPECT_EQ(parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT"), kSeconds);
  EXPECT_EQ(parse_http_date("Sun Nov  6 08:49:37 1994"), kSeconds);
  EXPECT_EQ(parse_http_date("Thu, 29 Feb 2024 00:00:00 GMT"), 1709164800);
  EXPECT_EQ(parse_http_date("Saturday, 01-Jan-00 00:00:00 GMT"), 946684800);
}

TEST(HttpDateTest, WhatIsNoDateIsNone) {
  for (const char* text :
       {"", "tomorrow", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 nov 1994 08:49:37 GMT",
        "Thu, 29 Feb 2023 00:00:00 GMT", "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT ", "Sun Nov 06 08:49:37 1994 GMT",
        "Xxx, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov -994 08:49:37 GMT"}) {
    EXPECT_FALSE(parse_http_date(text)) << text;
  }
}

TEST(QueryTest, ReadsNamesAndValues) {
  const auto query = Query::parse("status=queued%2Cfailed&limit=20&&flag&e=&sp=a+b%20c");
  ASSERT_TRUE(query);
  EXPECT_EQ(query->get("status"), "queued,failed");
  EXPECT_EQ(query->get("limit"), "20");
  EXPECT_EQ(query->get("flag"), "");
  EXPECT_EQ(query->get("e"), "");
  EXPECT_EQ(query->get("sp"), "a b c");
  EXPECT_FALSE(query->get("after"));
}

TEST(QueryTest, WhatIsWrongIsSaid) {
  EXPECT_FALSE(Query::parse("a=%"));
  EXPECT_FALSE(Query::parse("a=%4"));
  EXPECT_FALSE(Query::parse("a=%zz"));
  EXPECT_FALSE(Query::parse("a=1&a=2"));
  EXPECT_FALSE(Query::parse("a=1&%61=2"));
  EXPECT_FALSE(Query::parse(std::string(Query::kMaxBytes + 1, 'a')));
  std::string many;
  for (size_t i = 0; i <= Query::kMaxPairs; ++i) {
    many += "n" + std::to_string(i) + "&";
  }
  EXPECT_FALSE(Query::parse(many));
  EXPECT_EQ(*Query::parse("a=%41")->get("a"), "A");
}

}  // namespace
}  // namespace penstock::http
