// What is read of GPUs, by a library that stands in for the driver's (tests/fixtures/fake_nvml.cc).
#include "worker/nvml/nvml.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>

namespace penstock::nvml {
namespace {

using wire::DeviceHealth;

class NvmlTest : public testing::Test {
 protected:
  static constexpr const char* kOneGpu =
      "gpus 1\n0.uuid GPU-aa\n0.name Fake H100\n0.util 50\n0.used 1024\n0.total 4096\n"
      "0.temp 61\n0.power 250000\n0.pending 0\n";

  NvmlTest() { ::setenv("FAKE_NVML", path_.c_str(), 1); }
  ~NvmlTest() override { ::unlink(path_.c_str()); }

  void answer(const std::string& lines) { std::ofstream(path_) << lines; }
  static std::variant<Nvml, NoDriver, Error> open() { return Nvml::open(PENSTOCK_FAKE_NVML); }
  static std::vector<Reading> read(Nvml& nvml) {
    auto readings = nvml.read();
    EXPECT_TRUE(readings) << readings.error().message;
    return *readings;
  }
  std::vector<Reading> read(const std::string& lines) {
    answer(lines);
    auto opened = open();
    return read(std::get<Nvml>(opened));
  }

  const std::string path_ = testing::TempDir() + "nvml." + std::to_string(::getpid());
};

TEST_F(NvmlTest, EveryFigureOfAGpuIsRead) {
  const auto readings = read(kOneGpu);
  ASSERT_EQ(readings.size(), 1U);
  const Reading& gpu = readings[0];
  EXPECT_EQ(gpu.uuid, "GPU-aa");
  EXPECT_EQ(gpu.name, "Fake H100");
  EXPECT_EQ(gpu.parent, std::nullopt);
  EXPECT_EQ(gpu.known, 15U);
  EXPECT_EQ(gpu.utilization_percent, 50U);
  EXPECT_EQ(gpu.memory_used_bytes, 1024U);
  EXPECT_EQ(gpu.memory_total_bytes, 4096U);
  EXPECT_EQ(gpu.temperature_celsius, 61U);
  EXPECT_EQ(gpu.power_mw, 250000U);
  EXPECT_EQ(gpu.health, DeviceHealth::kGood);
  EXPECT_EQ(gpu.message, "");
}

TEST_F(NvmlTest, AFigureThatADeviceDoesNotHaveIsNotKnownAndNoFault) {
  const auto readings = read("gpus 1\n0.uuid GPU-aa\n0.name Old\n0.used 0\n0.total 8\n");
  ASSERT_EQ(readings.size(), 1U);
  EXPECT_EQ(readings[0].known, uint64_t{wire::kMemoryKnown});
  EXPECT_EQ(readings[0].health, DeviceHealth::kGood);
}

TEST_F(NvmlTest, SlicesFollowTheirGpuAndEmptyPlacesAreLeftOut) {
  const auto readings = read(std::string(kOneGpu) +
                             "0.slices 7\n0.1.uuid MIG-1\n0.1.name MIG 1g\n0.1.used 5\n"
                             "0.1.total 10\n0.4.uuid MIG-4\n0.4.name MIG 1g\n");
  ASSERT_EQ(readings.size(), 3U);
  EXPECT_EQ(readings[0].uuid, "GPU-aa");
  EXPECT_EQ(readings[1].uuid, "MIG-1");
  EXPECT_EQ(readings[1].parent, 0U);
  EXPECT_EQ(readings[1].index, 1U);
  EXPECT_EQ(readings[1].memory_total_bytes, 10U);
  EXPECT_EQ(readings[1].known, uint64_t{wire::kMemoryKnown});
  EXPECT_EQ(readings[2].index, 4U);
}

TEST_F(NvmlTest, ALostGpuIsToldOfBesideTheOthersAndSeenAgainOnceItWasReset) {
  answer(std::string(kOneGpu) + "gpus 2\n1.uuid GPU-bb\n1.name Fake H100\n1.total 8\n1.used 1\n");
  auto opened = open();
  Nvml& nvml = std::get<Nvml>(opened);
  ASSERT_EQ(read(nvml).size(), 2U);
  answer(std::string(kOneGpu) + "0.error 15\ngpus 2\n1.uuid GPU-bb\n1.total 8\n1.used 1\n");
  const auto readings = read(nvml);
  ASSERT_EQ(readings.size(), 2U);
  EXPECT_EQ(readings[0].uuid, "");
  EXPECT_EQ(readings[0].health, DeviceHealth::kLost);
  EXPECT_EQ(readings[0].message, "GPU is lost");
  EXPECT_EQ(readings[0].known, 0U);
  EXPECT_EQ(readings[1].health, DeviceHealth::kGood);
  answer(kOneGpu);
  nvml.release();
  ASSERT_TRUE(nvml.acquire());
  EXPECT_EQ(read(nvml)[0].health, DeviceHealth::kGood) << "it was reset";
}

TEST_F(NvmlTest, AGpuThatWaitsForAResetOrIsNotAnsweredForIsSaidToBe) {
  EXPECT_EQ(read(std::string(kOneGpu) + "0.error 16\n")[0].health, DeviceHealth::kResetRequired);
  EXPECT_EQ(read(std::string(kOneGpu) + "0.error 999\n")[0].health, DeviceHealth::kUnreadable);
}

TEST_F(NvmlTest, AGpuOfOthersIsNotListed) {
  EXPECT_TRUE(read(std::string(kOneGpu) + "0.error 4\n").empty());
}

TEST_F(NvmlTest, BrokenMemoryIsTellingOnlyWhereItCannotBePutRight) {
  const std::string gpu = "gpus 1\n0.uuid GPU-aa\n0.name Fake\n0.used 0\n0.total 8\n";
  EXPECT_EQ(read(gpu + "0.failed 1\n")[0].health, DeviceHealth::kMemory);
  const Reading pending = read(gpu + "0.pending 1\n0.failed 0\n0.ecc 2\n")[0];
  EXPECT_EQ(pending.health, DeviceHealth::kGood) << "what was hit is not used again";
  EXPECT_NE(pending.message.find("reset it when it is idle"), std::string::npos);
  const Reading older = read(gpu + "0.ecc 2\n")[0];
  EXPECT_EQ(older.health, DeviceHealth::kMemory) << "rows are not replaced here";
  EXPECT_EQ(older.message, "2 uncorrectable errors in its memory; reset it");
  EXPECT_EQ(read(gpu + "0.ecc 0\n")[0].health, DeviceHealth::kGood);
  EXPECT_EQ(read(gpu + "0.ecc 2\n0.slices 0\n")[0].health, DeviceHealth::kGood) << "it is divided";
}

TEST_F(NvmlTest, WithoutADriverThatIsAllThereIsToSay) {
  auto nothing = Nvml::open("libnvidia-ml-of-nobody.so.1");
  ASSERT_TRUE(std::holds_alternative<NoDriver>(nothing));
  EXPECT_EQ(std::get<NoDriver>(nothing).why,
            "no NVIDIA driver: libnvidia-ml-of-nobody.so.1 is not there");
  answer("init 9\n");
  auto not_loaded = open();
  ASSERT_TRUE(std::holds_alternative<NoDriver>(not_loaded));
  EXPECT_EQ(std::get<NoDriver>(not_loaded).why, "no NVIDIA driver, or no GPU: Driver Not Loaded");
}

TEST_F(NvmlTest, ADriverThatIsNotInOrderIsAnError) {
  answer("init 18\n");
  auto mismatched = open();
  ASSERT_TRUE(std::holds_alternative<Error>(mismatched));
  EXPECT_EQ(std::get<Error>(mismatched).message,
            "the NVIDIA driver does not start: Driver/library version mismatch");
  answer("");
  auto dumb = open();
  const auto readings = std::get<Nvml>(dumb).read();
  ASSERT_FALSE(readings);
  EXPECT_EQ(readings.error().message, "the NVIDIA driver does not answer: Unknown Error");
  auto other = Nvml::open("libz.so.1");
  ASSERT_TRUE(std::holds_alternative<Error>(other));
  EXPECT_NE(std::get<Error>(other).message.find("libz.so.1 is no NVML"), std::string::npos);
}

}  // namespace
}  // namespace penstock::nvml
