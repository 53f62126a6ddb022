// notify: what an operator's programs and services are told.
#include "worker/queue/config/notify_config.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "worker/queue/config/load_config.h"

namespace penstock::queue {
namespace {

Result<Config> parsed(const std::string& hooks) {
  return parse_config("socket: /s\nstate: /tmp/state\nnotify:\n" + hooks, "p.yaml");
}
std::string complaint(const std::string& keys) {
  const auto config = parsed("  - { " + keys + " }\n");
  return config ? "" : config.error().message;
}
const NoticeFields kFields = {"failed", "job_1", "failed", "default", "sim", "a \"b\"\n",
                              "x & y",  "",      "3",      "10",      "",    "30"};
std::string filled(const std::string& body) {
  const auto config = parsed("  - on: [failed]\n    url: https://chat.example/hook\n    " + body);
  EXPECT_TRUE(config) << config.error().message;
  return config ? config->notify[0].body.fill(kFields) : "";
}

TEST(NotifyConfigTest, ReadsProgramsAndUrls) {
  const auto config = parsed(
      "  - { on: [completed, dead], command: [/bin/true, -x], timeout: 3s, tries: 2, at_once: 1 }\n"
      "  - { on: [failed], url: \"https://chat.example/hook\", headers: { X-Team: a } }\n");
  ASSERT_TRUE(config) << config.error().message;
  const HookConfig& program = config->notify[0];
  EXPECT_EQ(program.name, "true");
  EXPECT_EQ(program.on, 1U << static_cast<unsigned>(NoticeEvent::kCompleted) |
                            1U << static_cast<unsigned>(NoticeEvent::kDead));
  EXPECT_EQ(program.command, (std::vector<std::string>{"/bin/true", "-x"}));
  EXPECT_EQ(program.timeout_ns, 3 * kNsPerSec);
  EXPECT_EQ(program.tries, 2U);
  EXPECT_EQ(program.at_once, 1U);
  const HookConfig& url = config->notify[1];
  EXPECT_EQ(url.name, "chat.example");
  EXPECT_EQ(url.headers, (std::vector<std::string>{"X-Team: a", "content-type: application/json"}));
  EXPECT_TRUE(url.body.empty());
}

TEST(NotifyConfigTest, WhatMayBeAKeyIsNotShown) {
  const auto config = parsed(
      "  - { on: [dead], command: [/bin/true, --token, hidden] }\n"
      "  - { on: [dead], url: \"https://me:hidden@chat.example/services/hidden\" }\n");
  ASSERT_TRUE(config) << config.error().message;
  const std::string all = config->settings.text();
  EXPECT_EQ(all.find("hidden"), std::string::npos) << all;
  EXPECT_NE(all.find("https://chat.example/..."), std::string::npos) << all;
  EXPECT_NE(all.find("/bin/true"), std::string::npos) << all;
}

TEST(NotifyConfigTest, JsonIsQuotedWhateverIsFilledIn) {
  EXPECT_EQ(filled("json: { text: \"{{id}} of {{queue}}: {{label}}\", n: \"{{attempts}}\" }"),
            R"({"text":"job_1 of default: a \"b\"\n","n":3})");
  EXPECT_EQ(filled("json: [ 1, -0.5, true, null, \"7\", \"{{error_code}}\", \"{{ label }}\" ]"),
            R"([1,-0.5,true,null,"7",null,"a \"b\"\n"])");
}

TEST(NotifyConfigTest, FormsAreEncodedWhateverIsFilledIn) {
  EXPECT_EQ(filled("form: { To: \"+1 2\", Body: \"{{error}}={{label}}\" }"),
            "To=%2B1+2&Body=x+%26+y%3Da+%22b%22%0A");
}

TEST(NotifyConfigTest, AKeyFromAFileIsAHeader) {
  const std::string path = std::filesystem::temp_directory_path() / "notify_key_test";
  std::ofstream(path) << "secret\n";
  ::chmod(path.c_str(), 0600);
  const std::string hook = "on: [failed], url: \"https://a.example/\", key_file: " + path;
  const auto config = parsed("  - { " + hook + " }\n");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->notify[0].headers.front(), "authorization: Bearer secret");
  ::chmod(path.c_str(), 0644);
  EXPECT_NE(complaint(hook).find("may be read by all"), std::string::npos);
  std::filesystem::remove(path);
  EXPECT_NE(complaint(hook).find("cannot be read"), std::string::npos);
}

TEST(NotifyConfigTest, ToBeShownItNeedsNoKey) {
  const auto config = parse_config(
      "socket: /s\nstate: /state\nnotify:\n  - { on: [failed], url: \"https://a.example/\", "
      "key_file: /no/such }\n",
      "p.yaml", NamedFiles::kNamed);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_NE(config->settings.text().find("key_file: /no/such"), std::string::npos)
      << config->settings.text();
}

TEST(NotifyConfigTest, WhatIsWrongIsSaidWithItsPlaceAndWhatWouldBeRight) {
  const std::string on = "on: [failed], ";
  const std::pair<std::string, std::string> cases[] = {
      {"command: [/bin/true]", "p.yaml:4: key 'notify[0].on': is missing; write a list"},
      {"on: failed, command: [/bin/true]",
       "notify[0].on': must be a list of events, like [failed]"},
      {"on: [done], command: [/bin/true]", "has 'done', which is none of completed, failed"},
      {on + "timeout: 1s", "a hook needs command: [PROGRAM] or url:"},
      {on + "command: /bin/true", "must be a list of 1 to 64 words"},
      {on + "command: [/no/such]", "there is no program /no/such"},
      {on + "command: [true]", "write its whole path"},
      {on + "command: [/bin/true], json: {a: b}", "json': stands beside command"},
      {on + "url: \"gopher://a\"", "must be http://HOST/PATH"},
      {on + "url: \"https://a/\", json: {a: 1}, form: {a: b}", "form': stands beside json"},
      {on + "url: \"https://a/\", json: {a: \"{{prompt}}\"}",
       "has {{prompt}}, which is none of event"},
      {on + "url: \"https://a/\", json: {a: \"{{id\"}", "which is none of"},
      {on + "url: \"https://a/\", headers: {a b: c}", "must be a map of at most 32 headers"},
      {on + "command: [/bin/true], tries: 11", "tries"},
      {on + "command: [/bin/true], at_once: 0", "at_once"},
      {on + "command: [/bin/true], timout: 1s", "timeout"}};
  for (const auto& [keys, words] : cases) {
    EXPECT_NE(complaint(keys).find(words), std::string::npos) << keys << ": " << complaint(keys);
  }
  const std::string hook = "  - { on: [failed], command: [/bin/true] }\n";
  const auto twice = parsed(hook + hook);
  ASSERT_FALSE(twice);
  EXPECT_NE(twice.error().message.find("is 'true', as of another"), std::string::npos);
  const auto stateless = parse_config("socket: /s\nnotify:\n" + hook, "p.yaml");
  ASSERT_FALSE(stateless);
  EXPECT_NE(stateless.error().message.find("needs `state`"), std::string::npos);
}

TEST(NotifyConfigTest, AnAliasThatGrowsIsRefused) {
  std::string json = "json:\n      a: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    json += "      a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) {
      json += (j > 0 ? ", *a" : "*a") + std::to_string(i - 1);
    }
    json += "]\n";
  }
  const auto config = parsed("  - on: [failed]\n    url: https://a.example/\n    " + json);
  ASSERT_FALSE(config);
  EXPECT_NE(config.error().message.find("too large, or too deep"), std::string::npos);
}

}  // namespace
}  // namespace penstock::queue
