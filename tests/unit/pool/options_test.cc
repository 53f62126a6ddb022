#include "worker/pool/options.h"

#include <gtest/gtest.h>

#include <vector>

namespace penstock {
namespace {

Result<WorkerOptions> parse(std::vector<std::string> words) {
  words.insert(words.begin(), "penstock-worker");
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  return parse_command_line(static_cast<int>(words.size()), argv.data());
}

std::string complaint(std::vector<std::string> more) {
  std::vector<std::string> words = {"--name", "w", "--engine", "simulate"};
  words.insert(words.end(), more.begin(), more.end());
  const auto options = parse(words);
  return options ? "accepted" : options.error().message;
}

TEST(WorkerOptionsTest, ReadsEveryOption) {
  const auto options = parse(
      {"--fd",         "5",        "--name", "demo",     "--engine",   "llama",      "--model",
       "models/demo/", "--slots",  "8",      "--memory", "2147483648", "--device",   "1",
       "--threads=4",  "--option", "a=b=c",  "--option", "d=",         "--max-body", "1000"});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->fd, 5);
  EXPECT_EQ(options->name, "demo");
  EXPECT_EQ(options->engine, "llama");
  EXPECT_EQ(options->model, "models/demo/");
  EXPECT_EQ(options->model_name, "demo") << "the last part of the path";
  EXPECT_EQ(options->slots, 8U);
  EXPECT_EQ(options->memory_bytes, int64_t{1} << 31);
  EXPECT_EQ(options->max_body_bytes, 1000U);
  EXPECT_EQ(options->device, "1");
  EXPECT_EQ(options->threads, 4);
  EXPECT_EQ(options->engine_options.at("a"), "b=c");
  EXPECT_EQ(options->engine_options.at("d"), "");
}

TEST(WorkerOptionsTest, WhatRequestsMayHoldIsNotTheEnginesOwn) {
  const auto options = parse({"--name", "w", "--engine", "e", "--option", "lenient=true",
                              "--option", "steering=true", "--option", "a=b"});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_TRUE(options->lenient && options->steering);
  EXPECT_EQ(options->engine_options.size(), 1U);
  EXPECT_FALSE(parse({"--name", "w", "--engine", "e"})->lenient);
  EXPECT_NE(complaint({"--option", "lenient=yes"}).find("true or false"), std::string::npos);
}

TEST(WorkerOptionsTest, OneThatWatchesDevicesNeedsNoNameAndNoEngine) {
  const auto options = parse({"--watch-devices", "--fd", "4"});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_TRUE(options->watch_devices);
  EXPECT_EQ(options->fd, 4);
  EXPECT_FALSE(parse({"--fd", "4"}));
}

TEST(WorkerOptionsTest, TheModelsNameHasSensibleDefaults) {
  EXPECT_EQ(parse({"--name", "w", "--engine", "e"})->model_name, "w");
  EXPECT_EQ(parse({"--name", "w", "--engine", "e", "--model", "m"})->model_name, "m");
  EXPECT_EQ(parse({"--name", "w", "--engine", "e", "--model", "/a/b"})->model_name, "b");
  EXPECT_EQ(parse({"--name", "w", "--engine", "e", "--model", "/"})->model_name, "w");
  EXPECT_EQ(
      parse({"--name", "w", "--engine", "e", "--model", "/a/b", "--model-name", "n"})->model_name,
      "n");
}

TEST(WorkerOptionsTest, AWrongOptionIsNamed) {
  EXPECT_EQ(complaint({"--slots", "0"}), "--slots must be a number from 1 to 65536, not \"0\"");
  EXPECT_EQ(complaint({"--slots", "2x"}), "--slots must be a number from 1 to 65536, not \"2x\"");
  EXPECT_EQ(complaint({"--device", "gpu"}),
            "--device must be auto, cpu or a GPU's number, not \"gpu\"");
  EXPECT_EQ(complaint({"--option", "x"}), "--option must be KEY=VALUE, not \"x\"");
  EXPECT_EQ(complaint({"--speed", "5"}), "unknown or incomplete option --speed");
  EXPECT_EQ(complaint({"--fd"}), "unknown or incomplete option --fd");
  EXPECT_EQ(complaint({"more"}), "unexpected argument more");
  EXPECT_EQ(parse({"--engine", "llama"}).error().message, "--name is missing");
  EXPECT_EQ(parse({"--name", "w"}).error().message, "--engine is missing");
  EXPECT_TRUE(parse({"--help"})->help);
}

}  // namespace
}  // namespace penstock
