#include "shared/base/units.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(UnitsTest, ReadsDurations) {
  EXPECT_EQ(parse_duration_ns("20ms"), 20'000'000);
  EXPECT_EQ(parse_duration_ns("2s"), 2'000'000'000);
  EXPECT_EQ(parse_duration_ns("10m"), 600'000'000'000);
  EXPECT_EQ(parse_duration_ns("24h"), 86'400'000'000'000);
  EXPECT_EQ(parse_duration_ns("1d"), 86'400'000'000'000);
  EXPECT_EQ(parse_duration_ns("7us"), 7'000);
  EXPECT_EQ(parse_duration_ns("7ns"), 7);
  EXPECT_EQ(parse_duration_ns("0"), 0);
}

TEST(UnitsTest, RefusesWhatIsNoDuration) {
  for (const char* text : {"", "20", "ms", "-1s", "1.5s", "1 s", "1S", "1sec", "99999999999999999d",
                           "9223372036854775808ns", "+1s", "-0"}) {
    EXPECT_EQ(parse_duration_ns(text), std::nullopt) << text;
  }
}

TEST(UnitsTest, ReadsSizes) {
  EXPECT_EQ(parse_size_bytes("512MiB"), int64_t{512} << 20);
  EXPECT_EQ(parse_size_bytes("2GiB"), int64_t{2} << 30);
  EXPECT_EQ(parse_size_bytes("1TiB"), int64_t{1} << 40);
  EXPECT_EQ(parse_size_bytes("4KiB"), 4096);
  EXPECT_EQ(parse_size_bytes("100"), 100);
  EXPECT_EQ(parse_size_bytes("100B"), 100);
}

TEST(UnitsTest, RefusesWhatIsNoSize) {
  for (const char* text : {"", "GiB", "2GB", "2g", "-1", "9999999999TiB", "1.5GiB"}) {
    EXPECT_EQ(parse_size_bytes(text), std::nullopt) << text;
  }
}

TEST(UnitsTest, WritesDurationsInTheLargestUnitThatDividesThem) {
  EXPECT_EQ(format_duration(1'500'000'000), "1500ms");
  EXPECT_EQ(format_duration(30'000'000'000), "30s");
  EXPECT_EQ(format_duration(600'000'000'000), "10m");
  EXPECT_EQ(format_duration(0), "0s");
  EXPECT_EQ(format_size(int64_t{3} << 30), "3GiB");
  EXPECT_EQ(format_size(1536), "1536B");
  EXPECT_EQ(format_size(0), "0B");
}

}  // namespace
}  // namespace penstock
