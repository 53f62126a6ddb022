#include "shared/http/header_lines.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock::http {
namespace {

bool refused(std::string_view text) {
  HeaderLine line;
  return next_header_line(text, line) != nullptr;
}

TEST(HeaderLinesTest, LinesAreTakenOffOneByOne) {
  std::string_view rest = "Location: /jobs/job_1\nRetry-After:  3 \nX-Empty:\n";
  HeaderLine line;
  ASSERT_EQ(next_header_line(rest, line), nullptr);
  EXPECT_EQ(line.name, "Location");
  EXPECT_EQ(line.value, "/jobs/job_1");
  ASSERT_EQ(next_header_line(rest, line), nullptr);
  EXPECT_EQ(line.name, "Retry-After");
  EXPECT_EQ(line.value, "3");
  ASSERT_EQ(next_header_line(rest, line), nullptr);
  EXPECT_EQ(line.value, "");
  EXPECT_TRUE(rest.empty());
}

TEST(HeaderLinesTest, WhatCouldForgeAMessageIsRefused) {
  for (const std::string_view text :
       {"Location: /a", ": a\n", "No colon\n", "Two Words: a\n", "A: b\rSet-Cookie: c\n",
        "A: \x01\n", "A: caf\xc3\xa9\n", "Content-Length: 5\n", "TRANSFER-ENCODING: chunked\n",
        "Connection: x\n"}) {
    EXPECT_TRUE(refused(text)) << text;
  }
  EXPECT_TRUE(refused("A: " + std::string(kMaxHeaderValue + 1, 'a') + "\n"));
  EXPECT_TRUE(refused(std::string(65, 'a') + ": b\n"));
  EXPECT_FALSE(refused("A: " + std::string(kMaxHeaderValue, 'a') + "\n"));
}

}  // namespace
}  // namespace penstock::http
