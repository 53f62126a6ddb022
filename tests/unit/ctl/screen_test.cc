#include "worker/ctl/screen.h"

#include <gtest/gtest.h>

#include "shared/base/clock.h"
#include "worker/ctl/ask.h"
#include "worker/ctl/rates.h"

namespace penstock::ctl {
namespace {

TEST(ScreenTest, AFrameIsCutToTheWindowInCharacters) {
  EXPECT_EQ(frame_of("one\ntwo\nthree\n", 80, 2), "one\x1b[K\r\ntwo\x1b[K");
  EXPECT_EQ(frame_of("\xC3\xA9\xC3\xA9\xC3\xA9\n", 2, 9), "\xC3\xA9\xC3\xA9\x1b[K");
  EXPECT_EQ(frame_of("a\n\nb", 9, 9), "a\x1b[K\r\n\x1b[K\r\nb\x1b[K");
  EXPECT_EQ(frame_of("", 9, 9), "");
}

TEST(RatesTest, TellsWhatGrewEachSecond) {
  Rates rates;
  const auto status = [](int accepted, int failed) {
    return R"({"counters":{"accepted":)" + std::to_string(accepted) + R"(,"protocol_errors":)" +
           std::to_string(failed) + "}}";
  };
  EXPECT_EQ(rates.since_last(status(10, 1), 1 * kNsPerSec), "");
  EXPECT_EQ(rates.since_last(status(35, 1), 3 * kNsPerSec), "12.5 accepted/s");
  EXPECT_EQ(rates.since_last(status(36, 2), 4 * kNsPerSec),
            "1.0 accepted/s, 1.0 protocol errors/s");
  EXPECT_EQ(rates.since_last(status(36, 2), 5 * kNsPerSec), "");
  EXPECT_EQ(rates.since_last(status(1, 0), 6 * kNsPerSec), "") << "penstockd was started anew";
  EXPECT_EQ(rates.since_last("{}", 7 * kNsPerSec), "");
}

TEST(AskTest, QueriesAreEncodedAndEmptyOnesLeftOut) {
  EXPECT_EQ(query_of({{"owner", "Bearer sk&x=1\xC3\xA9"}, {"queue", ""}, {"status", "a,b"}}),
            "owner=Bearer%20sk%26x%3D1%C3%A9&status=a,b");
  EXPECT_EQ(query_of({}), "");
}

}  // namespace
}  // namespace penstock::ctl
