#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "worker/queue/config/load_config.h"

namespace penstock::queue {
namespace {

// A folder with a configuration and programs beside it.
class ProcessKeysTest : public ::testing::Test {
 protected:
  ProcessKeysTest() {
    std::string path = "/tmp/penstock-keys-XXXXXX";
    folder_ = ::mkdtemp(path.data());
    put("run", 0755);
    put("data.txt", 0644);
  }
  ~ProcessKeysTest() override { std::filesystem::remove_all(folder_); }

  void put(const std::string& name, mode_t mode) {
    std::ofstream(folder_ + "/" + name) << "#!/bin/sh\n";
    ::chmod((folder_ + "/" + name).c_str(), mode);
  }

  Result<Config> load(const std::string& keys) {
    return parse_config("socket: /s\nworkers:\n- {name: a, engine: process, " + keys + "}\n",
                        folder_ + "/p.yaml");
  }
  std::vector<std::pair<std::string, std::string>> options(const std::string& keys) {
    const auto config = load(keys);
    EXPECT_TRUE(config) << config.error().message;
    return config ? config->workers[0].options : std::vector<std::pair<std::string, std::string>>{};
  }
  // Without the file's name.
  std::string complaint(const std::string& keys) {
    const auto config = load(keys);
    return config ? "" : config.error().message.substr(folder_.size() + 8);
  }

  std::string folder_;
};

using Options = std::vector<std::pair<std::string, std::string>>;

TEST_F(ProcessKeysTest, AProgramIsFoundInPathAndFilesBesideTheConfiguration) {
  EXPECT_EQ(options("command: [sh, data.txt, --flag, other.txt]"),
            (Options{{"command.0", "sh"},
                     {"command.1", folder_ + "/data.txt"},
                     {"command.2", "--flag"},
                     {"command.3", "other.txt"}}));
  EXPECT_EQ(options("command: [./run]"), (Options{{"command.0", folder_ + "/run"}}));
}

TEST_F(ProcessKeysTest, BoundsAreNormalised) {
  EXPECT_EQ(
      options("command: [sh], timeout: 10m, grace: 300ms, memory_limit: 8GiB, max_line: 1KiB"),
      (Options{{"command.0", "sh"},
               {"timeout_ns", "600000000000"},
               {"grace_ns", "300000000"},
               {"memory_limit", "8589934592"},
               {"max_line", "1024"}}));
}

TEST_F(ProcessKeysTest, AVariableHasItsValueOrOurs) {
  ::setenv("PENSTOCK_TEST_OURS", "inherited", 1);
  const auto config = load("command: [sh], env: {A: 'b=c', PENSTOCK_TEST_OURS: , UNKNOWN_HERE: }");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->workers[0].environment,
            (std::vector<std::string>{"A=b=c", "PENSTOCK_TEST_OURS=inherited"}));
}

TEST_F(ProcessKeysTest, WhatIsWrongIsToldWithItsLine) {
  EXPECT_EQ(complaint("slots: 1"),
            "3: key 'workers[0].command': is missing; engine process needs a list of words, like "
            "[python3, render.py]");
  for (const char* const slots : {"257", "auto"}) {
    EXPECT_EQ(complaint("command: [sh], slots: " + std::string(slots)),
              "3: key 'workers[0].slots': must be a number of at most 256 for engine process, as "
              "each is a program of its own");
  }
  EXPECT_EQ(complaint("command: sh -c"),
            "3: key 'workers[0].command': must be a list of 1 to 256 words, like "
            "[python3, render.py]");
  EXPECT_EQ(complaint("command: [./missing]"), "3: key 'workers[0].command': there is no program " +
                                                   folder_ + "/missing that may be executed");
  EXPECT_EQ(complaint("command: [./data.txt]"),
            "3: key 'workers[0].command': there is no program " + folder_ +
                "/data.txt that may be executed");
  EXPECT_EQ(
      complaint("command: [no-such-program]"),
      "3: key 'workers[0].command': there is no program no-such-program that may be executed, "
      "in no folder of PATH");
  EXPECT_EQ(
      complaint("command: [sh], env: {PATH: /nowhere}"),
      "3: key 'workers[0].command': there is no program sh that may be executed, in no folder "
      "of PATH");
  EXPECT_EQ(complaint("command: [sh], env: [A]"),
            "3: key 'workers[0].env': must be a map of at most 256 variables, NAME: value; without "
            "a value it is penstockd's own");
  EXPECT_EQ(complaint("command: [sh], user: nobody-of-this-name"),
            "3: key 'workers[0].user': there is no user 'nobody-of-this-name' on this host");
  EXPECT_EQ(
      complaint("command: [sh], scratch: missing"),
      "3: key 'workers[0].scratch': " + folder_ + "/missing is no folder that may be written to");
}

TEST_F(ProcessKeysTest, AnotherEngineHasNoneOfThem) {
  const auto config = parse_config(
      "socket: /s\nworkers:\n- {name: a, engine: simulate, command: [sh]}\n", "p.yaml");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().message,
            "p.yaml:3: key 'workers[0].command': is for engine process, and this worker's is "
            "simulate");
}

}  // namespace
}  // namespace penstock::queue
