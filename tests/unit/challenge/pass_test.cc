#include "shared/challenge/pass.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock::challenge {
namespace {

constexpr int64_t kNow = 1'800'000'000;
constexpr int64_t kWeek = 7 * 86400;

class PassTest : public testing::Test {
 protected:
  std::string issue(int64_t seconds = 3600, int64_t at = kNow) const {
    return std::string(
        write_pass(keys_,
                   {make_holder(keys_, "ip", "192.0.2.1"), {1, 2, 3, 4, 5, 6, 7, 8}, at, seconds})
            .view());
  }
  bool is_good(std::string_view text, int64_t now_s = kNow) const {
    return read_pass(keys_, text, now_s).has_value();
  }
  const Keys keys_ = make_keys("a secret");
};

TEST_F(PassTest, SaysWhatWasWritten) {
  const auto pass = read_pass(keys_, issue(), kNow);
  ASSERT_TRUE(pass);
  EXPECT_EQ(pass->holder, make_holder(keys_, "ip", "192.0.2.1"));
  EXPECT_EQ(pass->id[7], 8);
  EXPECT_EQ(pass->issued_s, kNow);
  EXPECT_EQ(pass->seconds, 3600);
  EXPECT_EQ(issue().size(), 69u);
  EXPECT_EQ(issue().find_first_of(" ;,\"\\~"), std::string::npos);  // a cookie's value as it is
}

TEST_F(PassTest, Ends) {
  EXPECT_TRUE(is_good(issue(), kNow + 3599));
  EXPECT_FALSE(is_good(issue(), kNow + 3600));
}

TEST_F(PassTest, ComesFromTheFutureByAClocksErrorAtMost) {
  EXPECT_TRUE(is_good(issue(), kNow - kClockSkewSeconds));
  EXPECT_FALSE(is_good(issue(), kNow - kClockSkewSeconds - 1));
}

TEST_F(PassTest, LastsAcrossTheWeeksEnd) {
  const int64_t end = (kNow / kWeek + 1) * kWeek;
  const std::string pass = issue(kLongestPassSeconds, end - 1);
  EXPECT_TRUE(is_good(pass, end + kWeek - 2));
  EXPECT_FALSE(is_good(pass, end + kWeek - 1));
  EXPECT_FALSE(
      is_good(issue(int64_t{1} << 31, end - 1), end + kWeek));  // its key is of two weeks ago
}

TEST_F(PassTest, NoOtherTextIsOne) {
  const std::string pass = issue();
  for (size_t i = 0; i < pass.size(); ++i) {
    std::string other = pass;
    other[i] = other[i] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(is_good(other)) << other;
    EXPECT_FALSE(is_good(pass.substr(0, i))) << i;
  }
  EXPECT_FALSE(is_good(pass + "A"));
  EXPECT_FALSE(is_good(""));
  EXPECT_FALSE(is_good(std::string(4000, 'A')));
}

TEST_F(PassTest, OfAnotherSecretIsNone) {
  EXPECT_FALSE(read_pass(make_keys("another"), issue(), kNow));
}

TEST_F(PassTest, OfOneKindIsNoneOfAnother) {
  constexpr Kind kAll[] = {Kind::kPass, Kind::kTicket, Kind::kAway};
  for (const Kind written : kAll) {
    const PassText text = write_pass(keys_, {make_holder(keys_, "ip", "a"), {}, kNow, 60}, written);
    for (const Kind read : kAll) {
      EXPECT_EQ(read_pass(keys_, text.view(), kNow, read).has_value(), read == written);
      std::string renamed(text.view());
      renamed[0] = "pta"[static_cast<size_t>(read)];
      EXPECT_EQ(read_pass(keys_, renamed, kNow, read).has_value(), read == written);
    }
  }
}

}  // namespace
}  // namespace penstock::challenge
