#include "shared/limit/returns.h"

#include <gtest/gtest.h>

#include <memory>

namespace penstock::limit {
namespace {

constexpr int64_t kNever = INT64_MAX;

class ReturnsTest : public testing::Test {
 protected:
  int64_t tell(uint64_t who, int64_t now, int64_t earliest, uint64_t place = 1,
               int64_t latest = kNever) {
    return returns_->tell(place, who, now, earliest, 10, latest);
  }
  std::unique_ptr<Returns> returns_ = std::make_unique<Returns>();
};

TEST_F(ReturnsTest, OneWhoIsAloneIsToldWhenThereIsRoomHoweverOftenItAsks) {
  for (int64_t now = 100; now < 150; ++now) {
    EXPECT_EQ(tell(7, now, 150), 150);
  }
  EXPECT_EQ(tell(7, 150, 200), 200) << "it was let in, and is refused anew";
}

TEST_F(ReturnsTest, OneWhoIsAloneIsToldWhenThereIsRoomAlsoWhereThatIsSooner) {
  EXPECT_EQ(tell(7, 100, 150), 150);
  EXPECT_EQ(tell(7, 110, 120), 120) << "it asks for less, or some was given back";
  EXPECT_EQ(tell(8, 110, 120), 130);
  EXPECT_EQ(tell(7, 110, 115), 120) << "it is not alone any more";
}

TEST_F(ReturnsTest, OneWhoIsAloneIsToldSoHoweverManyOtherPlacesThereAre) {
  constexpr uint64_t kManyPlaces = 1000;
  for (const int64_t earliest : {900, 500}) {
    for (uint64_t place = 1; place <= kManyPlaces; ++place) {
      EXPECT_EQ(tell(7 * place, 100, earliest, place), earliest);
    }
  }
}

TEST_F(ReturnsTest, EachOfACrowdIsGivenATimeOfItsOwn) {
  for (int64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(tell(static_cast<uint64_t>(1000 + i), 100, 150), 150 + 10 * i);
  }
}

TEST_F(ReturnsTest, WhoeverHammersMovesNobodyBack) {
  tell(1, 100, 150);
  for (int i = 0; i < 1000; ++i) {
    tell(2, 100, 150);
  }
  EXPECT_EQ(tell(3, 100, 150), 170);
}

TEST_F(ReturnsTest, OnePlacesCrowdIsNotAnothers) {
  for (uint64_t who = 1; who < 50; ++who) {
    tell(who, 100, 150, 1);
  }
  EXPECT_EQ(tell(99, 100, 150, 2), 150);
}

TEST_F(ReturnsTest, NobodyIsToldLaterThanTheLatest) {
  int64_t last = 0;
  for (uint64_t who = 1; who < 500; ++who) {
    last = tell(who, 100, 150, 1, 1000);
    EXPECT_LE(last, 1000);
  }
}

TEST_F(ReturnsTest, OnceTheTimesAreOverTheyBeginAnew) {
  tell(1, 100, 150);
  tell(2, 100, 150);
  EXPECT_EQ(tell(3, 500, 510), 510);
}

TEST_F(ReturnsTest, AStepThatNoTimeHoldsIsNotAddedUp) {
  constexpr int64_t kFourYears = int64_t{1} << 57;
  for (uint64_t who = 1; who < 10; ++who) {
    EXPECT_EQ(returns_->tell(1, who, 100, 150, kFourYears, 1'000, 64), 150);
  }
}

TEST_F(ReturnsTest, SeveralProcessesLeaveEachOtherTheirTimes) {
  EXPECT_EQ(returns_->tell(1, 1, 100, 150, 10, kNever, 4), 150);
  EXPECT_EQ(returns_->tell(1, 2, 100, 150, 10, kNever, 4), 190);
}

}  // namespace
}  // namespace penstock::limit
