// The watch of devices with processes that the test has written: each says what stands in a file.
#include "worker/queue/devices/watch.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "shared/base/event_loop.h"
#include "shared/wire/messages.h"

namespace penstock::queue {
namespace {

class DeviceWatchTest : public testing::Test {
 protected:
  DeviceWatchTest() {
    EXPECT_NE(::mkdtemp(folder_.data()), nullptr);
    ::setenv("PENSTOCK_NVML", "asked by nobody", 1);
    config_.worker_binary = folder_ + "/watch";
    connections_.set_now(now_ns_);
    watch_.on_change = [this] { ++changes_; };
  }
  ~DeviceWatchTest() override {
    ::unsetenv("PENSTOCK_NVML");
    [[maybe_unused]] const int status = ::system(("rm -rf " + folder_).c_str());
  }

  // The process says `frames`, and then does `then`.
  void script(const std::string& frames, const std::string& then) {
    std::ofstream(folder_ + "/frames") << frames;
    std::ofstream(folder_ + "/watch") << "#!/bin/sh\ncat " << folder_ << "/frames >&3\n"
                                      << then << "\n";
    ::chmod((folder_ + "/watch").c_str(), 0755);
  }
  static std::string hello(wire::Role role = wire::Role::kWatch) {
    std::string out;
    wire::append(out, 0, wire::Hello{.version = 1, .role = static_cast<uint64_t>(role)});
    return out;
  }
  static std::string round(std::initializer_list<wire::Device> devices, uint64_t count,
                           std::string_view message = "") {
    std::string out;
    for (const wire::Device& device : devices) {
      wire::append(out, 0, device);
    }
    wire::append(out, 0, wire::Devices{.count = count, .message = message});
    return out;
  }
  static std::string one_gpu() { return hello() + round({{.uuid = "GPU-aa", .known = 15}}, 1); }

  // Lets the loop turn, at this moment, until it is so.
  template <typename Condition>
  void until(const Condition& condition) {
    for (int i = 0; i < 5000 && !condition(); ++i) {
      loop_.run_once(0, 0);
      connections_.reap();
      connections_.flush();
      watch_.reap();
      ::poll(nullptr, 0, 1);
    }
    EXPECT_TRUE(condition());
  }
  // The process was reaped and its socket read to its end: what is next is known.
  void until_next_start(int64_t after_ns) {
    until([&] { return watch_.next_event() == now_ns_ + after_ns; });
  }
  void advance(int64_t ns) {
    connections_.set_now(now_ns_ += ns);
    watch_.advance_to(now_ns_);
  }

  std::string folder_ = testing::TempDir() + "watch.XXXXXX";
  int64_t now_ns_ = kNsPerSec;
  EventLoop loop_ = *EventLoop::create();
  ConnectionLoop connections_{loop_, {}, [this] { return now_ns_; }};
  Config config_;
  DeviceWatch watch_{connections_};
  int changes_ = 0;
};

TEST_F(DeviceWatchTest, ARoundSaysWhichDevicesThereAre) {
  script(hello() + round({{.uuid = "GPU-aa", .name = "H100", .known = 4, .temperature_celsius = 61},
                          {.index = 2,
                           .parent_plus1 = 1,
                           .uuid = "MIG-bb",
                           .health = 1,
                           .message = "GPU is lost"}},
                         2),
         "exec sleep 1000");
  watch_.apply(config_);
  until([&] { return watch_.watching(); });
  ASSERT_EQ(watch_.devices().size(), 2U);
  const DeviceState& gpu = watch_.devices()[0];
  EXPECT_EQ(gpu.label(), "0");
  EXPECT_EQ(gpu.name, "H100");
  EXPECT_EQ(gpu.temperature_celsius, 61U);
  EXPECT_TRUE(gpu.healthy());
  const DeviceState& slice = watch_.devices()[1];
  EXPECT_EQ(slice.label(), "0:2");
  EXPECT_EQ(slice.parent, 0U);
  EXPECT_EQ(slice.health, wire::DeviceHealth::kLost);
  EXPECT_FALSE(slice.healthy());
  EXPECT_EQ(changes_, 1);
}

TEST_F(DeviceWatchTest, OneThatSaysNothingAtFirstIsGivenAMinute) {
  script(hello(), "exec sleep 1000");
  watch_.apply(config_);
  EXPECT_EQ(watch_.next_event(), now_ns_ + DeviceWatch::kFirstRoundNs);
  advance(DeviceWatch::kFirstRoundNs - 1);
  EXPECT_EQ(watch_.trouble(), "");
  advance(1);
  EXPECT_EQ(watch_.trouble(), "the driver has not answered for 1m");
  until_next_start(RestartBackoff::kFirstNs);
}

TEST_F(DeviceWatchTest, OneThatFallsSilentIsReplacedAndWhatItSawIsNotTakenForNow) {
  script(one_gpu(), "exec sleep 1000");
  watch_.apply(config_);
  until([&] { return watch_.watching(); });
  EXPECT_EQ(watch_.next_event(), now_ns_ + config_.limits.heartbeat_timeout_ns);
  advance(config_.limits.heartbeat_timeout_ns);
  EXPECT_FALSE(watch_.watching());
  EXPECT_EQ(watch_.devices()[0].known, 0U);
  EXPECT_TRUE(watch_.devices()[0].healthy()) << "as it was last seen";
  EXPECT_EQ(changes_, 2);
  until_next_start(RestartBackoff::kFirstNs);
  advance(RestartBackoff::kFirstNs);
  until([&] { return watch_.watching(); });
  EXPECT_EQ(watch_.devices()[0].known, 15U);
  EXPECT_EQ(watch_.trouble(), "");
}

TEST_F(DeviceWatchTest, OneThatDiesIsStartedAgainLessAndLessOften) {
  script(hello(), "kill -SEGV $$");
  watch_.apply(config_);
  until_next_start(RestartBackoff::kFirstNs);
  EXPECT_EQ(watch_.trouble(), "a call to the driver ended the watch by signal 11");
  advance(RestartBackoff::kFirstNs);
  until_next_start(2 * RestartBackoff::kFirstNs);
  script(one_gpu(), "exec sleep 1000");
  advance(2 * RestartBackoff::kFirstNs);
  until([&] { return watch_.watching(); });
  advance(RestartBackoff::kHealthyNs - 1);  // it is silent by then
  advance(1);
  until_next_start(RestartBackoff::kFirstNs);
}

TEST_F(DeviceWatchTest, WithoutADriverItIsLookedForEachMinute) {
  script(hello() + round({}, 0, "no NVIDIA driver"), "exit 0");
  watch_.apply(config_);
  advance(kNsPerSec);  // so that this minute is another than that of its first round
  until_next_start(DeviceWatch::kLookAgainNs);
  EXPECT_EQ(watch_.trouble(), "no NVIDIA driver");
  EXPECT_FALSE(watch_.watching());
  EXPECT_TRUE(watch_.devices().empty());
  script(one_gpu(), "exec sleep 1000");
  advance(DeviceWatch::kLookAgainNs);
  until([&] { return watch_.watching(); });
  EXPECT_EQ(watch_.trouble(), "");
}

TEST_F(DeviceWatchTest, WhatItSaysAtLastIsWhy) {
  std::string frames = hello();
  wire::append(frames, 0, wire::Goodbye{"the NVIDIA driver does not start: mismatch"});
  script(frames, "exit 1");
  watch_.apply(config_);
  until_next_start(RestartBackoff::kFirstNs);
  EXPECT_EQ(watch_.trouble(), "the NVIDIA driver does not start: mismatch");
}

TEST_F(DeviceWatchTest, OneThatBreaksTheRulesIsNotHeard) {
  const std::string too_many = [] {
    std::string out = hello();
    for (size_t i = 0; i <= DeviceWatch::kMaxDevices; ++i) {
      wire::append(out, 0, wire::Device{.index = i % 16, .parent_plus1 = 1 + i / 16});
    }
    return out;
  }();
  int64_t wait_ns = RestartBackoff::kFirstNs;
  for (const auto& [frames, rule] : {
           std::pair{round({}, 0), "the first frame is not HELLO"},
           {hello(wire::Role::kWorker), "HELLO is not from the watch of devices"},
           {hello() + round({{.uuid = "GPU-aa"}}, 2), "DEVICES with another count than came"},
           {hello() + round({{.index = 1U << 30}}, 1), "DEVICE has an index that no host has"},
           {hello() + round({{.health = 5}}, 1), "DEVICE has a health that is not known"},
           {hello() + round({{.index = 1}, {.index = 1}}, 2), "DEVICE of one that was told of"},
           {too_many, "more devices than any host has"},
           {hello() + std::string(16, '\xff'), "reserved bytes are not zero"},
       }) {
    script(frames, "exit 0");
    if (!watch_.wanted()) {
      watch_.apply(config_);
    } else {
      advance(watch_.next_event() - now_ns_);
    }
    until_next_start(wait_ns);
    wait_ns *= 2;
    EXPECT_EQ(watch_.trouble(), std::string("the watch broke the protocol: ") + rule);
    EXPECT_TRUE(watch_.devices().empty());
  }
}

TEST_F(DeviceWatchTest, ALostDeviceKeepsTheNameItHad) {
  script(hello() + round({{.uuid = "GPU-aa", .name = "H100"}}, 1) +
             round({{.health = 1, .message = "GPU is lost"}}, 1),
         "exec sleep 1000");
  watch_.apply(config_);
  until([&] { return !watch_.devices().empty() && !watch_.devices()[0].healthy(); });
  EXPECT_EQ(watch_.devices()[0].uuid, "GPU-aa");
  EXPECT_EQ(watch_.devices()[0].name, "H100");
}

TEST_F(DeviceWatchTest, FiguresAloneAreNoChange) {
  script(hello() + round({{.uuid = "GPU-aa", .known = 8, .power_mw = 1}}, 1) +
             round({{.uuid = "GPU-aa", .known = 8, .power_mw = 2}}, 1),
         "exec sleep 1000");
  watch_.apply(config_);
  until([&] { return watch_.watching() && watch_.devices()[0].power_mw == 2; });
  EXPECT_EQ(changes_, 1);
}

TEST_F(DeviceWatchTest, ItRunsWhileSomeWorkerMayUseAGpu) {
  ::unsetenv("PENSTOCK_NVML");
  script(one_gpu(), "exec sleep 1000");
  WorkerConfig worker;
  const auto wanted = [&](const char* engine, const char* device) {
    worker.engine = engine;
    worker.devices = {device};
    config_.workers = {worker};
    watch_.apply(config_);
    return watch_.wanted();
  };
  EXPECT_FALSE(wanted("simulate", "auto"));
  EXPECT_FALSE(wanted("llama", "cpu"));
  EXPECT_EQ(watch_.next_event(), INT64_MAX);
  EXPECT_TRUE(wanted("simulate", "0"));
  EXPECT_TRUE(wanted("llama", "auto"));
  until([&] { return watch_.watching(); });
  EXPECT_FALSE(wanted("llama", "cpu"));
  EXPECT_TRUE(watch_.devices().empty());
  until([&] { return watch_.next_event() == INT64_MAX; });
}

}  // namespace
}  // namespace penstock::queue
