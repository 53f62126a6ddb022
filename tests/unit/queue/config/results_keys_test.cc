// results: where large results lie.
#include <gtest/gtest.h>

#include "worker/queue/config/load_config.h"

namespace penstock::queue {
namespace {

Result<Config> parse(const std::string& url) {
  return parse_config(
      "socket: /s\nstate: /d\nredis: { url: 'redis://10.0.0.5' }\nresults: { s3: '" + url +
          "', bucket: b, key_file: k }\n",
      "/etc/p.yaml");
}

// What is signed is what libcurl sends as Host, and that has no port which is the scheme's own.
TEST(ResultsKeysTest, ThePortOfAnAddressIsLeftOutWhereItIsTheSchemesOwn) {
  for (const auto& [url, kept] : {std::pair{"https://s3.example.com", "https://s3.example.com"},
                                  {"https://s3.example.com:443", "https://s3.example.com"},
                                  {"http://s3.example.com:80", "http://s3.example.com"},
                                  {"https://s3.example.com:80", "https://s3.example.com:80"},
                                  {"http://s3.example.com:443", "http://s3.example.com:443"},
                                  {"https://s3.example.com:4430", "https://s3.example.com:4430"},
                                  {"https://[2001:db8::443]", "https://[2001:db8::443]"},
                                  {"https://[2001:db8::1]:443", "https://[2001:db8::1]"},
                                  {"http://[::1]:80", "http://[::1]"},
                                  {"http://[::1]:9000", "http://[::1]:9000"}}) {
    const auto config = parse(url);
    ASSERT_TRUE(config) << url << config.error().message;
    EXPECT_EQ(config->results.s3, kept);
  }
}

TEST(ResultsKeysTest, WhatIsNoAddressIsRefused) {
  for (const char* const wrong :
       {"s3.example.com", "ftp://a", "https://", "https://:443", "https://a/b", "https://a:",
        "https://a:0", "https://a:0443", "https://a:65536", "https://a:x", "https://u@a",
        "https://[::1]443", "https://[::1", "https://a:1:2", "https://[::1]:443:443"}) {
    const auto config = parse(wrong);
    ASSERT_FALSE(config) << wrong;
    EXPECT_NE(config.error().message.find("must be https://HOST or https://HOST:PORT"),
              std::string::npos)
        << config.error().message;
  }
}

}  // namespace
}  // namespace penstock::queue
