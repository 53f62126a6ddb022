#include "worker/queue/config/config_files.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "worker/queue/config/environment.h"
#include "worker/queue/config/load_config.h"

namespace penstock::queue {
namespace {

namespace fs = std::filesystem;

class ConfigFilesTest : public testing::Test {
 protected:
  ConfigFilesTest() {
    char name[] = "/tmp/config_files_test.XXXXXX";
    folder_ = ::mkdtemp(name);
    fs::create_directory(folder_ / "conf.d");
  }
  ~ConfigFilesTest() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
  }
  std::string path() const { return (folder_ / "p.yaml").string(); }
  // What is wrong, with the folder left out; empty: nothing.
  std::string complaint() const {
    const auto config = load_config(path());
    std::string text = config ? "" : config.error().message;
    const std::string folder = folder_.string() + "/";
    for (size_t at; (at = text.find(folder)) != text.npos;) {
      text.erase(at, folder.size());
    }
    return text;
  }
  Config good() const {
    auto config = load_config(path());
    EXPECT_TRUE(config) << config.error().message;
    return config ? *std::move(config) : Config{};
  }

  fs::path folder_;
};

TEST_F(ConfigFilesTest, SectionsOfAllFilesAreOne) {
  write("p.yaml",
        "include: conf.d/*.yaml\nsocket: /s\nqueues: { a: {} }\nlimits: { max_body: 1MiB }\n"
        "workers: [ { name: one, engine: simulate, queue: b } ]\n");
  write("conf.d/10.yaml", "queues:\n  b: { attempts: 7 }\nlimits: { max_held: 2MiB }\n");
  write("conf.d/20.yaml", "workers:\n  - { name: two, engine: simulate, queue: a }\n");
  write("conf.d/later.yml", "nonsense: true\n");
  const Config config = good();
  EXPECT_EQ(config.files.size(), 3U);
  EXPECT_EQ(config.files[1], (folder_ / "conf.d/10.yaml").string());
  ASSERT_EQ(config.queues.size(), 3U);  // and "default"
  EXPECT_EQ(config.queues[2].attempts, 7U);
  ASSERT_EQ(config.workers.size(), 2U);
  EXPECT_EQ(config.workers[1].name, "two");
  EXPECT_EQ(config.limits.max_body_bytes, 1 << 20);
  EXPECT_EQ(config.limits.max_held_bytes, 2 << 20);
}

TEST_F(ConfigFilesTest, WhatAnIncludedFileChangesChangesTheDigest) {
  write("p.yaml", "include: [conf.d/a.yaml]\nsocket: /s\n");
  write("conf.d/a.yaml", "queues: { a: {} }\n");
  const uint64_t before = good().digest;
  write("conf.d/a.yaml", "queues: { b: {} }\n");
  EXPECT_NE(good().digest, before);
}

TEST_F(ConfigFilesTest, AComplaintNamesItsOwnFileAndLine) {
  write("p.yaml", "include: conf.d/*.yaml\nsocket: /s\n# three\n# four\n");
  write("conf.d/a.yaml", "\n\nlimits: { max_body: 1MiB }\n");
  write("conf.d/b.yaml", "\xEF\xBB\xBF# one\nqueues:\n  a: { atempts: 3 }\n");
  EXPECT_EQ(complaint(),
            "conf.d/b.yaml:3: key 'queues.a.atempts': unknown key; did you mean 'attempts'?");
  write("conf.d/b.yaml", "queues: { a: {}\n");
  EXPECT_EQ(complaint().substr(0, 30), "conf.d/b.yaml:2: not YAML: end");
  write("conf.d/b.yaml", "socket_mode: 9\n---\nqueues: {}\n");
  EXPECT_NE(complaint().find("conf.d/b.yaml:3: a second YAML document"), std::string::npos)
      << complaint();
}

TEST_F(ConfigFilesTest, ANameGivenTwiceNamesBothFilesAndLines) {
  write("p.yaml", "socket: /s\ninclude: conf.d/*.yaml\nqueues:\n  a: {}\n");
  write("conf.d/a.yaml", "queues:\n\n  a: {}\n");
  EXPECT_EQ(complaint(),
            "conf.d/a.yaml:3: key 'queues.a': comes twice, in p.yaml:4 as well; keep one");
  write("conf.d/a.yaml", "socket: /other\n");
  EXPECT_EQ(complaint(),
            "conf.d/a.yaml:1: key 'socket': comes twice, in p.yaml:1 as well; keep one");
  write("conf.d/a.yaml", "workers:\n - { name: w, engine: simulate }\n");
  write("conf.d/b.yaml", "workers:\n - { name: w, engine: simulate }\n");
  EXPECT_EQ(complaint(),
            "conf.d/b.yaml:2: key 'workers[1].name': two workers are called 'w'; the other is at "
            "conf.d/a.yaml:2");
  write("conf.d/b.yaml", "limits: { max_body: 1MiB }\nlimits: { max_held: 1MiB }\n");
  EXPECT_EQ(complaint(), "conf.d/b.yaml:2: key 'limits': comes twice; keep one");
}

TEST_F(ConfigFilesTest, IncludesArePathsThatAreThereOrPatterns) {
  write("p.yaml", "socket: /s\ninclude: none.d/*.yaml\n");
  EXPECT_EQ(complaint(), "");
  write("p.yaml", "socket: /s\ninclude: none.yaml\n");
  EXPECT_EQ(complaint(), "p.yaml:2: key 'include': there is no file none.yaml");
  write("p.yaml", "socket: /s\ninclude: { a: b }\n");
  EXPECT_NE(complaint().find("must be a path"), std::string::npos);
  write("p.yaml", "socket: /s\ninclude: conf.d\n");
  EXPECT_NE(complaint().find("is a folder; name the files in it"), std::string::npos);
  write("p.yaml", "socket: /s\ninclude: [conf.d/a.yaml, conf.d/*.yaml]\n");
  write("conf.d/a.yaml", "include: b.yaml\n");
  EXPECT_NE(complaint().find("names conf.d/a.yaml twice"), std::string::npos);
  write("p.yaml", "socket: /s\ninclude: conf.d/*.yaml\n");
  EXPECT_EQ(complaint(),
            "conf.d/a.yaml:1: key 'include': is for p.yaml; what it includes includes no more");
  write("conf.d/a.yaml", std::string(kMaxConfigBytes, '\n'));
  EXPECT_NE(complaint().find("is too much: all files together"), std::string::npos);
}

TEST_F(ConfigFilesTest, TheSocketIsFoundWhateverElseIsWrong) {
  write("p.yaml", "include: conf.d/*.yaml\nnonsense: 1\n");
  write("conf.d/a.yaml", "socket: /the/socket\n");
  const auto socket = load_socket(path());
  ASSERT_TRUE(socket) << socket.error().message;
  EXPECT_EQ(*socket, "/the/socket");
  EXPECT_FALSE(load_socket((folder_ / "none").string()));
}

TEST(EnvironmentTest, VariablesArePutIn) {
  ::setenv("PENSTOCK_A", "/models", 1);
  ::setenv("PENSTOCK_B", "${PENSTOCK_A}", 1);
  ::unsetenv("PENSTOCK_NONE");
  EXPECT_EQ(*with_environment("${PENSTOCK_A}/chat"), "/models/chat");
  EXPECT_EQ(*with_environment("${PENSTOCK_NONE:-/a}:${PENSTOCK_A:-/b}"), "/a:/models");
  EXPECT_EQ(*with_environment("${PENSTOCK_NONE:-}x"), "x");
  EXPECT_EQ(*with_environment("${PENSTOCK_B}"), "${PENSTOCK_A}");
  EXPECT_EQ(*with_environment("a$b $${c} $"), "a$b ${c} $");
  EXPECT_EQ(with_environment("${PENSTOCK_NONE}").error().message,
            "the environment has no PENSTOCK_NONE; set it, or write ${PENSTOCK_NONE:-default}");
  for (const char* wrong : {"${", "${}", "${A B}", "${1A}", "${A", "${:-x}"}) {
    EXPECT_FALSE(with_environment(wrong)) << wrong;
  }
}

TEST(EnvironmentTest, ShowsWhatIsInForceAndHowItIsWritten) {
  ::setenv("PENSTOCK_A", "/models", 1);
  const auto config = parse_config("socket: /s\nstate: ${PENSTOCK_A}/state\n", "/etc/p.yaml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->state, "/models/state");
  EXPECT_NE(config->settings.text().find("state: /models/state  # ${PENSTOCK_A}/state\n"),
            std::string::npos);
  const auto unset = parse_config("socket: /s\nstate: ${PENSTOCK_NONE}\n", "/etc/p.yaml");
  ASSERT_FALSE(unset);
  EXPECT_EQ(unset.error().message,
            "/etc/p.yaml:2: key 'state': the environment has no PENSTOCK_NONE; set it, or write "
            "${PENSTOCK_NONE:-default}");
}

TEST(SettingsTest, AChangeOfWhatIsNotShownIsTold) {
  const auto with = [](const std::string& value) {
    auto config = parse_config(
        "socket: /s\nworkers: [ { name: a, engine: process, command: [cat], "
        "env: { TOKEN: " +
            value + " } } ]\n",
        "/etc/p.yaml");
    EXPECT_TRUE(config) << config.error().message;
    return config ? config->settings : Settings{};
  };
  EXPECT_TRUE(with("one").changes_since(with("one")).empty());
  EXPECT_EQ(with("two").changes_since(with("one")),
            std::vector<std::string>{"workers.a.env: changed, in what is not shown"});
  EXPECT_EQ(with("two").text().find("two"), std::string::npos);
}

TEST(SettingsTest, SoIsOneOfHeadersOfAHookAndOfAFileOfSecrets) {
  const std::string path = testing::TempDir() + "settings_hook.secret";
  const auto with = [&](const std::string& header, const std::string& secret) {
    std::ofstream(path) << secret;
    auto config = parse_config("socket: /s\nstate: /t\nwebhooks: { secret_file: " + path +
                                   " }\nnotify:\n  - { on: [dead], name: a, url: "
                                   "\"https://a.example/\", headers: { X-Token: " +
                                   header + " } }\n",
                               "/etc/p.yaml");
    EXPECT_TRUE(config) << config.error().message;
    return config ? config->settings : Settings{};
  };
  const Settings before = with("one", "whsec_a");
  EXPECT_TRUE(with("one", "whsec_a").changes_since(before).empty());
  EXPECT_EQ(with("two", "whsec_a").changes_since(before),
            std::vector<std::string>{"notify[0].headers: changed, in what is not shown"});
  EXPECT_EQ(with("one", "whsec_b").changes_since(before),
            std::vector<std::string>{"webhooks.secret_file: changed, in what is not shown"});
  EXPECT_EQ(before.text().find("one"), std::string::npos);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace penstock::queue
