#include "shared/base/base64.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(Base64Test, TheVectorsOfRfc4648AreRead) {
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("Zg=="), "f");
  EXPECT_EQ(decode_base64("Zm8="), "fo");
  EXPECT_EQ(decode_base64("Zm9v"), "foo");
  EXPECT_EQ(decode_base64("Zm9vYmFy"), "foobar");
  EXPECT_EQ(decode_base64("//79"), "\xff\xfe\xfd");
}

TEST(Base64Test, AnythingElseIsNothing) {
  for (const char* const text : {"Zg", "Zg=", "Z===", "====", "Zm9v\n", "Zm 9", "Zm9v=", "Z=9v"}) {
    EXPECT_EQ(decode_base64(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace penstock
