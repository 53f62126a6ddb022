// The command line of a worker, its environment, and one real process.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "shared/base/restart_backoff.h"
#include "worker/queue/process/child.h"
#include "worker/queue/process/worker_command.h"

namespace penstock::queue {
namespace {

TEST(RestartBackoffTest, DoublesFromATenthOfASecondToHalfAMinute) {
  RestartBackoff backoff;
  for (const int64_t ms : {100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000}) {
    EXPECT_EQ(backoff.after(0), ms * kNsPerMs);
  }
}

TEST(RestartBackoffTest, BeginsAgainAfterAHealthyWorker) {
  RestartBackoff backoff;
  backoff.after(0);
  backoff.after(RestartBackoff::kHealthyNs - 1);
  EXPECT_EQ(backoff.after(RestartBackoff::kHealthyNs), RestartBackoff::kFirstNs);
}

TEST(WorkerCommandTest, SaysAllThatTheWorkerNeeds) {
  WorkerConfig worker;
  worker.name = "demo";
  worker.engine = "llama";
  worker.model = "models/demo";
  worker.model_path = "/etc/penstock/models/demo";
  worker.model_name = "demo";
  worker.devices = {"3", "4"};
  worker.device = "4";
  worker.slots = 8;
  worker.memory_bytes = int64_t{2} << 30;
  worker.options = {{"key", "value"}};
  const std::vector<std::string> expected = {"/bin/w",
                                             "--fd",
                                             "3",
                                             "--name",
                                             "demo",
                                             "--engine",
                                             "llama",
                                             "--model",
                                             "/etc/penstock/models/demo",
                                             "--model-name",
                                             "demo",
                                             "--slots",
                                             "8",
                                             "--memory",
                                             "2147483648",
                                             "--max-body",
                                             "33554432",
                                             "--device",
                                             "0",
                                             "--threads",
                                             "0",
                                             "--option",
                                             "key=value"};
  EXPECT_EQ(worker_command("/bin/w", worker, {}), expected);
}

Result<std::vector<std::string>> environment_on(const std::string& device) {
  WorkerConfig worker;
  worker.device = device;
  return worker_environment(worker);
}

TEST(WorkerCommandTest, AProcessSeesItsDeviceAlone) {
  using Environment = std::vector<std::string>;
  ::unsetenv("CUDA_VISIBLE_DEVICES");
  EXPECT_EQ(*environment_on("auto"), Environment{});
  EXPECT_EQ(*environment_on("cpu"), Environment{"CUDA_VISIBLE_DEVICES="});
  EXPECT_EQ(*environment_on("3"),
            (Environment{"CUDA_VISIBLE_DEVICES=3", "CUDA_DEVICE_ORDER=PCI_BUS_ID"}));
  ::setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7", 1);
  EXPECT_EQ(environment_on("1")->back(), "CUDA_VISIBLE_DEVICES=GPU-7");
  EXPECT_EQ(environment_on("MIG-9")->back(), "CUDA_VISIBLE_DEVICES=MIG-9");
  EXPECT_EQ(environment_on("2").error().message,
            "there is no device 2: CUDA_VISIBLE_DEVICES is \"5,GPU-7\", and numbers count what it "
            "lists");
  auto spawned = spawn({"/bin/sh", "-c", "env >&3"}, {"CUDA_VISIBLE_DEVICES=GPU-7"});
  ASSERT_TRUE(spawned);
  ::waitpid(spawned->child.pid(), nullptr, 0);
  char said[65536] = {};
  ASSERT_GT(::read(spawned->socket.get(), said, sizeof said - 1), 0);
  const std::string_view all(said);
  EXPECT_NE(all.find("CUDA_VISIBLE_DEVICES=GPU-7\n"), all.npos);
  EXPECT_EQ(all.find("5,GPU-7"), all.npos) << "ours is replaced";
  ::unsetenv("CUDA_VISIBLE_DEVICES");
}

TEST(WorkerCommandTest, WhatIsForItsProgramsIsInItsEnvironmentBehindAPrefix) {
  WorkerConfig worker;
  worker.device = "auto";
  worker.environment = {"TOKEN=secret"};
  EXPECT_EQ(*worker_environment(worker), std::vector<std::string>{"PENSTOCK_PROGRAM_TOKEN=secret"});
}

TEST(WorkerCommandTest, AProcessGetsItsSocketAndNoOtherDescriptor) {
  const Fd stray(
      ::fcntl(STDERR_FILENO, F_DUPFD, 50));  // a descriptor that somebody forgot to close on exec
  auto spawned = spawn({"/bin/sh", "-c", "ls /proc/self/fd | tr '\\n' ' ' >&3"});
  ASSERT_TRUE(spawned) << spawned.error().message;
  int status = 0;
  ASSERT_EQ(::waitpid(spawned->child.pid(), &status, 0), spawned->child.pid());
  EXPECT_EQ(status, 0);
  char said[100] = {};
  ASSERT_GT(::read(spawned->socket.get(), said, sizeof said - 1), 0);
  EXPECT_STREQ(said, "0 1 2 3 4 ");  // 4 is what ls itself reads
}

TEST(WorkerCommandTest, AProgramThatIsNotThereIsNamed) {
  auto spawned = spawn({"/nowhere/penstock-worker"});
  ASSERT_FALSE(spawned);
  EXPECT_EQ(spawned.error().message,
            "/nowhere/penstock-worker cannot be started: No such file or directory");
}

}  // namespace
}  // namespace penstock::queue
