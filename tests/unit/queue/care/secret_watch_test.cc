// Files with secrets, looked at while penstockd runs.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

#include "worker/queue/care/secret_files.h"

namespace penstock::queue {
namespace {

struct Disk {  // which a thread may look at for longer than a test takes
  std::atomic<bool> hangs = false, gone = false;
  std::atomic<int> looks = 0;

  std::string look(const std::string& path) {
    ++looks;
    while (hangs && path == "/mount/webhooks") {
      std::this_thread::yield();
    }
    return gone ? "No such file or directory" : "";
  }
};

class SecretWatchTest : public testing::Test {
 protected:
  SecretWatchTest() {
    config_.webhooks.secret_file = "/mount/webhooks";
    config_.redis.password_file = "/disk/redis";
  }
  ~SecretWatchTest() override { disk_->hangs = false; }

  // By a clock that is pushed on, while the thread looks.
  bool until(const std::function<bool()>& is_so) {
    const int64_t end_ns = monotonic_ns() + 10 * kNsPerSec;
    while (!is_so() && monotonic_ns() < end_ns) {
      pass(SecretWatch::kAnswerNs);
      std::this_thread::yield();
    }
    return is_so();
  }
  void pass(int64_t ns) { watch_.advance_to(config_, now_ns_ += ns); }

  const std::shared_ptr<Disk> disk_ = std::make_shared<Disk>();
  Config config_;
  int64_t now_ns_ = 1;
  SecretWatch watch_{[disk = disk_](const std::string& path) { return disk->look(path); }};
};

TEST_F(SecretWatchTest, WhatCannotBeReadIsCountedUntilItCan) {
  disk_->gone = true;
  EXPECT_TRUE(until([this] { return watch_.unreadable() == 2; }));
  disk_->gone = false;
  watch_.look_soon();
  EXPECT_TRUE(until([this] { return watch_.unreadable() == 0; }));
}

TEST_F(SecretWatchTest, AFileThatDoesNotAnswerHoldsUpNobodyAndIsToldOf) {
  disk_->hangs = true;
  pass(0);
  pass(SecretWatch::kHangsNs - 1);
  EXPECT_EQ(watch_.unreadable(), 0U);
  for (int i = 0; i < 3; ++i) {
    pass(SecretWatch::kHangsNs);
    EXPECT_EQ(watch_.unreadable(), 1U);
    EXPECT_GT(watch_.next_event(), now_ns_);
  }
  EXPECT_LE(disk_->looks, 1) << "nobody looks beside it";
  disk_->hangs = false;
  EXPECT_TRUE(until([this] { return watch_.unreadable() == 0; }));
  EXPECT_GE(disk_->looks, 2);
}

TEST_F(SecretWatchTest, FilesThatAReloadNamesAreLookedAtThoughAnotherHangs) {
  disk_->hangs = true;
  pass(0);
  config_.webhooks.secret_file.clear();
  watch_.look_soon();
  pass(1);
  disk_->gone = true;
  disk_->hangs = false;
  const int before = disk_->looks;
  EXPECT_TRUE(until([&] { return disk_->looks > before + 1; }));
  EXPECT_TRUE(until([this] { return watch_.unreadable() == 1; })) << "the one that is named now";
}

}  // namespace
}  // namespace penstock::queue
