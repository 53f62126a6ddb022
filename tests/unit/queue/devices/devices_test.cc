// Where processes are placed, what bounds them there, and what becomes of a device that fails.
#include "worker/queue/devices/devices.h"

#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>

#include "worker/queue/config/scaled_workers.h"

extern char** environ;

namespace penstock::queue {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

WorkerConfig worker(const char* name, std::vector<std::string> devices, uint32_t slots,
                    int64_t memory_bytes = 0, const char* engine = "simulate") {
  WorkerConfig worker;
  worker.name = name;
  worker.engine = engine;
  worker.devices = std::move(devices);
  worker.slots = slots;
  worker.memory_bytes = memory_bytes;
  return worker;
}

class DevicesTest : public testing::Test {
 protected:
  // Where each process is, in order.
  std::vector<std::string> place(const std::vector<WorkerConfig>& running = {}) {
    std::vector<WorkerConfig> processes = scaled_workers(config_.workers, scaling_);
    devices_.place(config_, running, processes, 0);
    processes_ = std::move(processes);  // last: `running` may be what was there
    std::vector<std::string> where;
    for (const WorkerConfig& process : processes_) {
      where.push_back(process.device);
    }
    return where;
  }
  const Budget& device(const char* id) { return devices_.all().at(id).budget; }
  // Waits for the checker that was started last.
  void finish_check(int64_t now_ns) {
    siginfo_t info{};
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(checker_), &info, WEXITED | WNOWAIT), 0);
    devices_.reap(now_ns);
  }

  Config config_;
  Scaling scaling_;
  std::string check_ = "exit 0";  // of sh
  int checks_ = 0;
  pid_t checker_ = 0;
  Devices devices_{[this](const WorkerConfig&, const std::string&, int) -> Result<Child> {
    ++checks_;
    const char* const argv[] = {"/bin/sh", "-c", check_.c_str(), nullptr};
    if (::posix_spawn(&checker_, argv[0], nullptr, nullptr, const_cast<char**>(argv), environ) !=
        0) {
      return Error{"no shell"};
    }
    return Child(checker_);
  }};
  std::vector<WorkerConfig> processes_;
};

using Where = std::vector<std::string>;

TEST_F(DevicesTest, ThereIsAProcessOnEachDeviceThatAWorkerLists) {
  config_.workers = {worker("a", {"0", "1"}, 8), worker("b", {"auto"}, 2)};
  EXPECT_EQ(place(), (Where{"0", "1", "auto"}));
}

TEST_F(DevicesTest, ProcessesGoWhereTheLeastIsTaken) {
  config_.workers = {worker("big", {"1"}, 64), worker("a", {"0", "1", "2"}, 8)};
  scaling_.set("a", 4);
  EXPECT_EQ(place(), (Where{"1", "0", "2", "1", "0"}));
}

TEST_F(DevicesTest, WhoRunsStaysWhereItIs) {
  config_.workers = {worker("a", {"0", "1"}, 8)};
  scaling_.set("a", 1);
  EXPECT_EQ(place(), (Where{"0"}));
  std::vector<WorkerConfig> running = processes_;
  running[0].device = "1";
  scaling_.set("a", 2);
  EXPECT_EQ(place(running), (Where{"1", "0"})) << "and the other goes where it is not";
}

TEST_F(DevicesTest, ADeviceIsBoundByTheLargestOfItsWorkersOrByWhatIsSaidOfIt) {
  config_.workers = {worker("a", {"0", "1"}, 8, 3 * kGiB), worker("b", {"0"}, 2, 4 * kGiB)};
  config_.devices = {{.id = "1", .slots = 5, .memory_bytes = kGiB}};
  place();
  EXPECT_EQ(device("0").slots, 8U);
  EXPECT_EQ(device("0").memory_bytes, 4 * kGiB);
  EXPECT_EQ(device("1").slots, 5U);
  EXPECT_EQ(device("1").memory_bytes, kGiB);
  const auto a = devices_.seat(processes_[0]);
  const auto b = devices_.seat(processes_[2]);
  b->take_slot();
  b->take_slot();
  EXPECT_EQ(b->free_slots(), 0U);
  EXPECT_EQ(a->free_slots(), 6U) << "the two of b count";
}

TEST_F(DevicesTest, WorkersThatNameNoDeviceHaveOneEach) {
  config_.workers = {worker("a", {"auto"}, 4), worker("b", {"auto"}, 2), worker("c", {"cpu"}, 1)};
  scaling_.set("a", 2);
  place();
  const auto a = devices_.seat(processes_[0]);
  const auto also_a = devices_.seat(processes_[1]);
  const auto b = devices_.seat(processes_[2]);
  a->take_slot();
  EXPECT_EQ(also_a->free_slots(), 3U);
  EXPECT_EQ(b->free_slots(), 2U);
}

TEST_F(DevicesTest, ProcessesThatReserveMemoryShareWhatTheDeviceHas) {
  config_.workers = {worker("a", {"0"}, 8, 2 * kGiB, "llama"),
                     worker("b", {"0"}, 8, 6 * kGiB, "llama")};
  scaling_.set("a", 2);
  place();
  EXPECT_EQ(processes_[0].memory_bytes, processes_[1].memory_bytes);
  int64_t sum = 0;
  for (const WorkerConfig& process : processes_) {
    sum += process.memory_bytes;
  }
  EXPECT_LE(sum, 6 * kGiB);
  EXPECT_GT(sum, 6 * kGiB - 10);
  config_.devices = {{.id = "0", .memory_bytes = 8 * kGiB}};
  place();
  EXPECT_EQ(processes_[0].memory_bytes, kGiB);
  EXPECT_EQ(processes_[2].memory_bytes, 6 * kGiB);
}

TEST_F(DevicesTest, AProcessIsNotStartedBeforeTheMemoryItReservesIsFree) {
  config_.workers = {worker("a", {"0"}, 8, 2 * kGiB, "llama")};
  place();
  auto old = devices_.seat(processes_[0]);
  EXPECT_FALSE(devices_.can_start(processes_[0]));
  old.reset();
  EXPECT_TRUE(devices_.can_start(processes_[0]));
}

TEST_F(DevicesTest, ADeviceThatWasLeftWhileBusyIsStillCounted) {
  config_.workers = {worker("a", {"0"}, 8)};
  place();
  const auto old = devices_.seat(processes_[0]);
  old->take_slot();
  config_.workers = {worker("b", {"1"}, 8)};
  place();
  config_.workers = {worker("a", {"0"}, 8)};
  place();
  EXPECT_EQ(devices_.seat(processes_[0])->free_slots(), 7U);
}

TEST_F(DevicesTest, AFaultyDeviceIsOutUntilItPassesItsCheck) {
  config_.workers = {worker("a", {"0", "1"}, 8)};
  place();
  const std::vector<WorkerConfig> running = processes_;
  int changes = 0;
  devices_.on_change = [&] { ++changes; };
  devices_.fault(processes_[1], "an illegal access", 0);
  EXPECT_EQ(changes, 1);
  EXPECT_FALSE(devices_.can_start(processes_[1]));
  EXPECT_EQ(place(running), (Where{"0", "0"})) << "the other one takes over";
  EXPECT_EQ(devices_.next_event(), RestartBackoff::kFirstNs);

  check_ = "exit 1";
  devices_.advance_to(RestartBackoff::kFirstNs);
  EXPECT_EQ(checks_, 1);
  finish_check(kNsPerSec);
  EXPECT_EQ(devices_.next_event(), kNsPerSec + 2 * RestartBackoff::kFirstNs) << "it backs off";

  check_ = "exec sleep 1000";
  devices_.advance_to(2 * kNsPerSec);
  devices_.advance_to(2 * kNsPerSec + Devices::kCheckTimeoutNs);
  finish_check(100 * kNsPerSec);
  EXPECT_TRUE(devices_.all().at("1").out);
  EXPECT_EQ(devices_.all().at("1").fault, "an illegal access") << "why it was taken out";

  check_ = "exit 0";
  devices_.advance_to(200 * kNsPerSec);
  finish_check(200 * kNsPerSec);
  EXPECT_EQ(changes, 2);
  EXPECT_EQ(place(processes_), (Where{"0", "1"})) << "one comes back";
}

DeviceState gpu(uint32_t index, const char* uuid, bool good = true) {
  DeviceState state;
  state.index = index;
  state.uuid = uuid;
  state.health = good ? wire::DeviceHealth::kGood : wire::DeviceHealth::kLost;
  state.message = good ? "" : "GPU is lost";
  return state;
}

TEST_F(DevicesTest, AnyGpuIsWhicheverTheDriverKnowsAndUsesTheLeast) {
  config_.workers = {worker("a", {"auto"}, 8, 0, "llama"), worker("b", {"auto"}, 8, 0, "llama"),
                     worker("c", {"auto"}, 8)};
  devices_.observe({}, false, 0);
  EXPECT_EQ(place(), (Where{"auto", "auto", "auto"}));
  EXPECT_FALSE(devices_.can_start(processes_[0])) << "which there are is not known yet";
  EXPECT_TRUE(devices_.can_start(processes_[2])) << "it takes none";
  devices_.observe({gpu(0, "GPU-aa"), gpu(1, "GPU-bb")}, true, 0);
  EXPECT_EQ(place(), (Where{"0", "1", "auto"}));
  DeviceState slice = gpu(0, "MIG-cc");
  slice.parent = 0;
  devices_.observe({gpu(0, "GPU-aa"), slice}, true, 0);
  EXPECT_EQ(place(), (Where{"MIG-cc", "MIG-cc", "auto"})) << "one that is divided is its slices";
  devices_.observe({}, true, 0);
  EXPECT_EQ(place(), (Where{"MIG-cc", "MIG-cc", "auto"})) << "nobody looks for now";
}

TEST_F(DevicesTest, WithoutADriverAnyGpuIsTheCpu) {
  config_.workers = {worker("a", {"auto"}, 8, 0, "llama")};
  devices_.observe({}, true, 0);
  EXPECT_EQ(place(), (Where{"auto"}));
  EXPECT_TRUE(devices_.can_start(processes_[0]));
}

TEST_F(DevicesTest, WhatOurEnvironmentListsIsNumberedFromThere) {
  ::setenv("CUDA_VISIBLE_DEVICES", "5,GPU-bb", 1);
  config_.workers = {worker("a", {"auto"}, 8, 0, "llama"), worker("b", {"auto"}, 8, 0, "llama")};
  devices_.observe({gpu(5, "GPU-aa"), gpu(6, "GPU-bb"), gpu(7, "GPU-cc")}, true, 0);
  EXPECT_EQ(place(), (Where{"0", "1"}));
  ::unsetenv("CUDA_VISIBLE_DEVICES");
}

TEST_F(DevicesTest, AUuidWaitsForTheDriverAsItMayBeANumber) {
  config_.workers = {worker("a", {"GPU-bb"}, 8), worker("b", {"1"}, 8)};
  devices_.observe({}, false, 0);
  place();
  EXPECT_FALSE(devices_.can_start(processes_[0]));
  EXPECT_TRUE(devices_.can_start(processes_[1]));
}

TEST_F(DevicesTest, JobsAreNotGrantedWhatIsSetAsideForProcesses) {
  config_.workers = {worker("chat", {"0"}, 8, 20 * kGiB, "llama"),
                     worker("image", {"0"}, 2, 8 * kGiB)};
  place();
  class : public Seat::Claimant {
   public:
    void on_granted(uint64_t, int64_t bytes) override { granted += bytes; }
    int64_t granted = 0;
  } told;
  const auto image = devices_.seat(processes_[1]);
  image->claim(1, 4 * kGiB, told);
  image->claim(2, 4 * kGiB, told);
  EXPECT_EQ(told.granted, 4 * kGiB) << "though nothing else runs yet";
  EXPECT_TRUE(devices_.can_start(processes_[0]));
  const auto chat = devices_.seat(processes_[0]);
  EXPECT_LE(device("0").held_bytes, 20 * kGiB);
  EXPECT_GT(chat->held_bytes(), 14 * kGiB);
}

TEST_F(DevicesTest, AModelDoesNotCrowdADeviceThatHasItsPart) {
  config_.workers = {worker("a", {"0", "1"}, 8, 2 * kGiB, "llama")};
  place();
  const std::vector<WorkerConfig> running = processes_;
  devices_.fault(processes_[0], "lost", 0);
  EXPECT_EQ(place(running), (Where{"0", "1"})) << "it waits for its own";
  EXPECT_EQ(processes_[1], running[1]) << "and the other goes on as it is";
  EXPECT_NE(devices_.waits_for(processes_[0]).find("device 0 is out: lost"), std::string::npos);
}

TEST_F(DevicesTest, TwoChecksThatEndTogetherAreBothSeen) {
  config_.workers = {worker("a", {"0", "1"}, 8)};
  place();
  const pid_t none = checker_;
  devices_.fault(processes_[0], "lost", 0);
  devices_.fault(processes_[1], "lost", 0);
  devices_.advance_to(kNsPerSec);
  for (const auto& [id, device] : devices_.all()) {
    siginfo_t info{};
    ASSERT_NE(device.checker.pid(), none);
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(device.checker.pid()), &info, WEXITED | WNOWAIT),
              0);
  }
  devices_.reap(kNsPerSec);  // one signal for both
  EXPECT_FALSE(devices_.all().at("0").out || devices_.all().at("1").out);
}

TEST_F(DevicesTest, TheBackOffOfADeviceGrowsThoughItWasGoodForLong) {
  config_.workers = {worker("a", {"0"}, 8)};
  place();
  check_ = "exit 0";
  devices_.fault(processes_[0], "lost", 0);
  devices_.advance_to(kNsPerSec);
  finish_check(kNsPerSec);
  place();  // nothing runs there: it is remembered all the same
  check_ = "exit 1";
  int64_t now_ns = 1000 * kNsPerSec;
  devices_.fault(processes_[0], "lost", now_ns);
  for (const int64_t ms : {100, 200, 400, 800}) {
    EXPECT_EQ(devices_.next_event() - now_ns, ms * kNsPerMs);
    now_ns = devices_.next_event();
    devices_.advance_to(now_ns);
    finish_check(now_ns);
  }
}

TEST_F(DevicesTest, ANumberAndAUuidMayBeOneDevice) {
  config_.workers = {worker("a", {"GPU-bb"}, 8), worker("b", {"1"}, 2)};
  devices_.observe({gpu(0, "GPU-aa"), gpu(1, "GPU-bb")}, true, 0);
  EXPECT_EQ(place(), (Where{"1", "1"}));
  const auto a = devices_.seat(processes_[0]);
  a->take_slot();
  EXPECT_EQ(device("1").busy, 1U);
}

TEST_F(DevicesTest, WhatTheDriverFindsBadIsOutUntilItSaysOtherwise) {
  config_.workers = {worker("a", {"0", "1"}, 8)};
  devices_.observe({gpu(0, "GPU-aa", false), gpu(1, "GPU-bb")}, true, 0);
  place();
  devices_.compare_with_seen(0);
  EXPECT_EQ(place(), (Where{"1", "1"}));
  EXPECT_EQ(devices_.all().at("0").fault, "lost: GPU is lost");
  EXPECT_EQ(devices_.next_event(), INT64_MAX) << "there is nothing to check";
  devices_.observe({gpu(0, "GPU-aa"), gpu(1, "GPU-bb")}, true, kNsPerSec);
  EXPECT_TRUE(devices_.all().at("0").out);
  devices_.advance_to(kNsPerSec);
  finish_check(kNsPerSec);
  EXPECT_EQ(place(processes_), (Where{"1", "0"}));
}

TEST_F(DevicesTest, WhereAllAreOutAProcessWaitsForItsOwn) {
  config_.workers = {worker("a", {"0"}, 8)};
  place();
  devices_.fault(processes_[0], "lost", 0);
  EXPECT_EQ(place(), (Where{"0"}));
  EXPECT_FALSE(devices_.can_start(processes_[0]));
}

}  // namespace
}  // namespace penstock::queue
