#include "worker/ctl/console.h"

#include <gtest/gtest.h>

#include <sstream>

#include "worker/ctl/key.h"

namespace penstock::ctl {
namespace {

TEST(ConsoleUrlTest, ThePathAndTheZoneAreAppended) {
  const auto full = [](const char* console, const char* zone = "") {
    const auto url = console_url(console, "limits", zone);
    return url ? url->full : url.error().message;
  };
  EXPECT_EQ(full("http://127.0.0.1:8080/console"), "http://127.0.0.1:8080/console/limits");
  EXPECT_EQ(full("http://127.0.0.1:8080/console//"), "http://127.0.0.1:8080/console/limits");
  EXPECT_EQ(full("https://edge"), "https://edge/limits");
  EXPECT_EQ(full("http://[::1]:8080/a/b%20c"), "http://[::1]:8080/a/b%20c/limits");
  EXPECT_EQ(full("http://e/console", "edge"), "http://e/console/limits?zone=edge");
  EXPECT_EQ(full("http://e/console", "a&b"), "http://e/console/limits?zone=a%26b");
}

TEST(ConsoleUrlTest, APasswordIsSentButNotShown) {
  const auto url = console_url("http://root:secret@edge/console", "limits");
  EXPECT_EQ(url->full, "http://root:secret@edge/console/limits");
  EXPECT_EQ(url->shown, "http://edge/console/limits");
}

TEST(ConsoleUrlTest, WhatIsNoUrlOfAConsoleIsRefused) {
  for (const char* console :
       {"", "edge", "127.0.0.1:8080/console", "/console", "file:///etc/passwd",
        "ftp://edge/console", "gopher://edge/", "http://", "http://e/?a=b", "http://e/#x",
        "http://e e/", "http://e/\r\nHost: x"}) {
    EXPECT_FALSE(console_url(console, "limits")) << console;
  }
}

TEST(ConsoleAnswerTest, AnObjectIsTakenAndAnythingElseIsNoConsole) {
  const ConsoleUrl url{"http://u:p@e/limits", "http://e/limits"};
  EXPECT_EQ(*judge_answer(url, 200, "{ \"a\": 1 }\n"), "{ \"a\": 1 }\n");
  for (const char* body :
       {"", "<html>", "[]", "{", "{} {}", "{\"a\":\"\x01\"}", "{\"a\":\"\xff\"}"}) {
    const auto answer = judge_answer(url, 200, body);
    ASSERT_FALSE(answer) << body;
    EXPECT_NE(answer.error().message.find("at http://e/limits is no console"), std::string::npos);
  }
}

TEST(ConsoleAnswerTest, AProblemIsToldInItsOwnWordsElseWithAdvice) {
  const ConsoleUrl url{"http://e/limits", "http://e/limits"};
  const auto said = [&](long status, const char* body) {
    return judge_answer(url, status, body).error().message;
  };
  EXPECT_EQ(said(404, R"({"title":"Not Found","detail":"There is no zone 'x'.\u001b[2J"})"),
            "the console at http://e/limits answered 404: There is no zone 'x'.?[2J");
  EXPECT_NE(said(404, "<html>").find("answered 404: that is no penstock_console location"),
            std::string::npos);
  EXPECT_NE(said(403, "{}").find("nginx.conf"), std::string::npos);
  EXPECT_NE(said(301, "").find("--url"), std::string::npos);
  EXPECT_NE(said(502, "{\"detail\":5").find("error log"), std::string::npos);
}

Result<std::string> read(const std::string& word, const std::string& input = "") {
  std::istringstream stream(input);
  return read_key(word, stream);
}

TEST(KeyTest, ADashReadsTheFirstLine) {
  EXPECT_EQ(*read("Bearer sk-1"), "Bearer sk-1");
  EXPECT_EQ(*read("-", "Bearer sk-1\nmore\n"), "Bearer sk-1");
  EXPECT_EQ(*read("-", "Bearer sk-1\r\n"), "Bearer sk-1");
  EXPECT_EQ(*read("-", "no end"), "no end");
}

TEST(KeyTest, WhatAHeaderCannotCarryIsRefusedAndNotRepeated) {
  for (const char* key : {"", "sk\nX: y", "sk\r", "sk\x7f", "sk\tx", " sk", "sk "}) {
    const auto read_back = read(key);
    ASSERT_FALSE(read_back) << key;
    EXPECT_EQ(read_back.error().message.find("sk"), std::string::npos);
  }
  EXPECT_FALSE(read("-", "\nsecond"));
  EXPECT_FALSE(read("-", ""));
  EXPECT_FALSE(read("-", std::string("a\0b", 3)));
  EXPECT_TRUE(read(std::string(kMaxKeyBytes, 'x')));
  EXPECT_FALSE(read(std::string(kMaxKeyBytes + 1, 'x')));
  EXPECT_FALSE(read("-", std::string(1 << 20, 'x')));
}

}  // namespace
}  // namespace penstock::ctl
