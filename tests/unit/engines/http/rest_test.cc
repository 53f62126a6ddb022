#include "worker/engines/http/rest.h"

#include <gtest/gtest.h>

#include "worker/engines/http/headers.h"
#include "worker/engines/http/retry_after.h"

namespace penstock::http_engine {
namespace {

constexpr int64_t kMs = kNsPerMs;

class RestTest : public ::testing::Test {
 protected:
  Rest rest{{.slots = 8, .first_ns = 100 * kMs, .most_ns = 500 * kMs, .max_hold_ns = 2000 * kMs}};
  int64_t now_ns = 1000 * kMs;

  int64_t fail(std::optional<int64_t> asked_ns = std::nullopt) {
    return rest.rest({"busy", false, false, asked_ns}, now_ns, now_ns) / kMs;
  }
  uint32_t open(uint32_t running = 0) { return rest.state(running, now_ns).slots; }
};

TEST_F(RestTest, RestsLongerEachTimeAndStartsAnewAfterAnAnswer) {
  for (const int64_t wanted_ms : {100, 200, 400, 500, 500}) {
    EXPECT_EQ(fail(), wanted_ms);
    EXPECT_EQ(open(), 0U);
    now_ns += wanted_ms * kMs;
    EXPECT_EQ(open(), 1U);
  }
  rest.answered(now_ns);
  EXPECT_EQ(open(), 8U);
  EXPECT_EQ(fail(), 100);
}

TEST_F(RestTest, TheServersWordCountsUpToABound) {
  EXPECT_EQ(fail(50 * kMs), 50);
  now_ns += 50 * kMs;
  EXPECT_EQ(fail(3600 * kNsPerSec), 2000);
  now_ns += 2000 * kMs;
  EXPECT_EQ(fail(0), 100) << "none at all would hammer it";
}

TEST_F(RestTest, OneJobTriesItAndThenAllMay) {
  fail();
  now_ns += 100 * kMs;
  EXPECT_EQ(open(3), 4U);
  EXPECT_EQ(open(4), 4U) << "the one that tries opens no other slot";
  now_ns += Rest::kTryNs;
  EXPECT_EQ(open(4), 8U);
}

TEST_F(RestTest, JobsThatRanBeforeDoNotMakeTheRestLonger) {
  const int64_t started_ns = now_ns;
  EXPECT_EQ(rest.rest({"busy"}, started_ns, now_ns), 100 * kMs);
  now_ns += 10 * kMs;
  EXPECT_EQ(rest.rest({"busy"}, started_ns, now_ns), 100 * kMs);
  now_ns += 100 * kMs;
  rest.answered(started_ns);
  EXPECT_EQ(open(), 1U) << "an answer from before says nothing of now";
}

TEST_F(RestTest, WhatIsNotPaidForRestsLong) {
  Rest::Cause cause{.why = "no money", .out = true, .quota = true};
  Rest unpaid{{.slots = 1}};
  EXPECT_EQ(unpaid.rest(cause, now_ns, now_ns), Rest::kQuotaNs);
  EXPECT_TRUE(unpaid.state(0, now_ns).out);
}

TEST_F(RestTest, AServerThatQueuesByItselfGetsFewer) {
  rest.crowd(3, 8);
  EXPECT_EQ(open(8), 5U);
  rest.crowd(0, 2);
  EXPECT_EQ(open(2), 5U) << "nobody asked for more";
  rest.crowd(0, 5);
  EXPECT_EQ(open(5), 6U);
  rest.crowd(100, 6);
  EXPECT_EQ(open(6), 1U);
}

TEST_F(RestTest, WhatIsHeldIsOutUntilItIsReleased) {
  rest.hold("not healthy");
  EXPECT_TRUE(rest.state(0, now_ns).out);
  EXPECT_EQ(rest.next_event(now_ns), INT64_MAX);
  rest.release();
  EXPECT_EQ(open(), 8U);
}

TEST(RetryAfterTest, IsReadInEachForm) {
  constexpr int64_t kUnix = 1'000'000'000 * kNsPerSec;
  const auto read = [](const char* text, const char* ms = "") {
    return read_retry_after(text, ms, kUnix).value_or(-1);
  };
  EXPECT_EQ(read("2"), 2 * kNsPerSec);
  EXPECT_EQ(read("0.25"), 250 * kMs);
  EXPECT_EQ(read("2", "300"), 300 * kMs);
  EXPECT_EQ(read("Sun, 09 Sep 2001 01:46:45 GMT"), 5 * kNsPerSec);
  EXPECT_EQ(read("0"), 0);
  for (const char* const nonsense :
       {"", "-5", "soon", "1e999", "nan", "inf", "Sun, 06 Nov 1994 08:49:37 GMT", "1s", "-0"}) {
    EXPECT_EQ(read(nonsense), -1) << nonsense;
  }
}

TEST(HeadTest, InformationalAnswersAndTrailersAreNoHead) {
  Head head;
  for (const char* const line :
       {"HTTP/1.1 103 Early Hints\r\n", "retry-after: 60\r\n", "\r\n", "HTTP/1.1 429 No\r\n",
        "Content-Type: a/b\r\n", "X-Request-Id: 1\r\n", "Set-Cookie: c\r\n", "\r\n"}) {
    EXPECT_FALSE(head.final() && line[0] != '\r');
    EXPECT_TRUE(head.take(line));
  }
  head.take("Retry-After: 99\r\n");
  EXPECT_TRUE(head.final());
  EXPECT_EQ(head.status(), 429);
  EXPECT_EQ(head.content_type(), "a/b");
  EXPECT_EQ(head.retry_after(), "");
  EXPECT_EQ(head.allowed(), "X-Request-Id: 1\n");
}

TEST(HeadTest, AFloodOfHeadersIsBounded) {
  Head head;
  head.take("HTTP/1.1 200 OK\r\n");
  bool more = true;
  size_t bytes = 0;
  const std::string line = "x: " + std::string(1000, 'y') + "\r\n";
  for (; more && bytes < (1U << 20); bytes += line.size()) {
    more = head.take(line);
  }
  EXPECT_LE(bytes, Head::kMaxBytes + line.size());
}

}  // namespace
}  // namespace penstock::http_engine
