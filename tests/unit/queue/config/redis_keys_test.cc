// redis, and queues that are shared by it.
#include <gtest/gtest.h>

#include "worker/queue/config/load_config.h"

namespace penstock::queue {
namespace {

Result<Config> parse(const std::string& redis, const std::string& more = "") {
  return parse_config("socket: /s\nredis: { " + redis + " }\n" + more, "/etc/p.yaml",
                      NamedFiles::kOpened);
}

std::string complaint(const std::string& redis, const std::string& more = "") {
  const auto config = parse(redis, more);
  return config ? "" : config.error().message;
}

TEST(RedisKeysTest, WithoutThemThereIsNoneAndNoQueueIsShared) {
  const auto config = parse_config("socket: /s\n", "p.yaml");
  ASSERT_TRUE(config);
  EXPECT_TRUE(config->redis.at.empty());
  EXPECT_FALSE(config->queues[0].shared);
}

TEST(RedisKeysTest, ReadsOneRedis) {
  const auto config = parse("url: 'redis://10.0.0.5:7000/3', user: u, prefix: shop, host: gpu-1",
                            "queues: { chat: { shared: true }, other: {} }\n");
  ASSERT_TRUE(config) << config.error().message;
  const RedisConfig& redis = config->redis;
  EXPECT_EQ(redis.at, (std::vector<RedisConfig::At>{{"", "10.0.0.5", 7000}}));
  EXPECT_EQ(redis.database, 3);
  EXPECT_EQ(redis.user + redis.prefix + redis.host, "ushopgpu-1");
  for (const QueueConfig& queue : config->queues) {
    EXPECT_EQ(queue.shared, queue.name == "chat") << queue.name;
  }
}

TEST(RedisKeysTest, ReadsSocketsSentinelsAndClusters) {
  EXPECT_EQ(parse("url: 'unix:/run/redis.sock'")->redis.at[0].path, "/run/redis.sock");
  const auto sentinels = parse("url: 'redis://10.0.0.1:26379,[::1]:26380,10.0.0.3', sentinel: m");
  ASSERT_TRUE(sentinels) << sentinels.error().message;
  EXPECT_EQ(sentinels->redis.at,
            (std::vector<RedisConfig::At>{
                {"", "10.0.0.1", 26379}, {"", "::1", 26380}, {"", "10.0.0.3", 6379}}));
  EXPECT_EQ(sentinels->redis.sentinel, "m");
  EXPECT_EQ(parse("url: 'redis://10.0.0.1,10.0.0.2'")->redis.at.size(), 2U);
}

TEST(RedisKeysTest, WhatIsWrongIsSaidWithWhatWouldBeRight) {
  const std::string url = "/etc/p.yaml:2: key 'redis.url': ";
  EXPECT_EQ(complaint("prefix: a").find(url + "is missing; it must be redis://HOST:PORT"), 0U);
  for (const char* const wrong :
       {"10.0.0.5:6379", "http://10.0.0.5", "redis://10.0.0.5:0", "redis://10.0.0.5:70000",
        "redis://10.0.0.5/x", "unix:", "redis://10.0.0:6379", "redis://a..b", "redis://a b",
        "redis://10.0.0.5,"}) {
    EXPECT_EQ(
        complaint("url: '" + std::string(wrong) + "'").find(url + "must be redis://HOST:PORT"), 0U)
        << wrong;
  }
  const std::string tls = complaint("url: 'rediss://10.0.0.5'");
  EXPECT_EQ(tls.find(url + "must be redis:// or unix:"), 0U) << tls;
  EXPECT_NE(tls.find("stunnel"), std::string::npos) << tls;
  EXPECT_NE(complaint("url: 'redis://:secret@10.0.0.5'").find("password_file"), std::string::npos);
  EXPECT_NE(complaint("url: 'redis://10.0.0.1,10.0.0.2/1'").find("a cluster"), std::string::npos);
  for (const char* const wrong : {"maybe", "replicas", "replicas:", "replicas:0", "replicas:x"}) {
    EXPECT_NE(complaint("url: 'unix:/r', promise: '" + std::string(wrong) + "'")
                  .find("must be fsync, or replicas:N"),
              std::string::npos)
        << wrong;
  }
  EXPECT_NE(complaint("url: 'unix:/r', promise: 'replicas:1'").find("needs `state`"),
            std::string::npos);
  EXPECT_NE(complaint("url: 'unix:/r', prefix: 'a b'").find("redis.prefix"), std::string::npos);
  EXPECT_NE(complaint("url: 'unix:/r', password_file: none").find("/etc/none cannot be read"),
            std::string::npos);
}

TEST(RedisKeysTest, ReadsNamesAndHowJobsArePromised) {
  const auto config = parse("url: 'redis://redis-1.internal:7000,redis', promise: 'replicas:2'",
                            "state: s\nqueues: { chat: { shared: true, on_error: local } }\n");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->redis.at,
            (std::vector<RedisConfig::At>{{"", "redis-1.internal", 7000}, {"", "redis", 6379}}));
  EXPECT_EQ(config->redis.replicas, 2U);
  for (const QueueConfig& queue : config->queues) {
    EXPECT_EQ(queue.local_on_error, queue.name == "chat") << queue.name;
  }
  EXPECT_NE(complaint("url: 'unix:/r'", "queues: { chat: { on_error: local } }\n")
                .find("needs `shared: true`"),
            std::string::npos);
}

TEST(RedisKeysTest, ASharedQueueNeedsARedis) {
  const auto config = parse_config("socket: /s\nqueues: { chat: { shared: true } }\n", "p.yaml");
  ASSERT_FALSE(config);
  EXPECT_EQ(
      config.error().message,
      "p.yaml:2: key 'queues.chat.shared': needs `redis`: its jobs are kept there, for all hosts");
}

}  // namespace
}  // namespace penstock::queue
