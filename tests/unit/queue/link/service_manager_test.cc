#include "worker/queue/link/service_manager.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>

#include "shared/base/clock.h"
#include "shared/base/unix_socket.h"
#include "worker/queue/link/listener.h"

namespace penstock::queue {
namespace {

constexpr int kHandedOver = 3;

class ServiceManagerTest : public testing::Test {
 protected:
  ServiceManagerTest() {
    char name[] = "/tmp/penstock-test-XXXXXX";
    folder_ = ::mkdtemp(name);
    inbox_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    bind(inbox_, folder_ + "/notify");
    ::setenv("NOTIFY_SOCKET", (folder_ + "/notify").c_str(), 1);
  }
  ~ServiceManagerTest() override {
    for (const char* const name :
         {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"}) {
      ::unsetenv(name);
    }
    std::filesystem::remove_all(folder_);
  }

  static void bind(const Fd& socket, const std::string& path) {
    const sockaddr_un address = *unix_address(path);
    ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  // The next word that came; empty: none.
  std::string heard() const {
    char words[512];
    const ssize_t size = ::recv(inbox_.get(), words, sizeof words, 0);
    return size > 0 ? std::string(words, static_cast<size_t>(size)) : "";
  }
  // Runs it in a process of its own, where descriptor 3 is `socket` and was handed over.
  static void with_handed_over(const Fd& socket, const std::function<bool()>& holds) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::dup2(socket.get(), kHandedOver);
      ::setenv("LISTEN_FDS", "1", 1);
      ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
      ::_exit(holds() ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }

  std::string folder_;
  Fd inbox_;
};

TEST_F(ServiceManagerTest, HearsThatItIsReadyReloadsAndStops) {
  auto manager = ServiceManager::from_environment();
  ASSERT_TRUE(manager);
  EXPECT_EQ(manager->next_event(), INT64_MAX);
  manager->ready();
  EXPECT_EQ(heard(), "READY=1\n");
  manager->reloading(7 * kNsPerSec);
  EXPECT_EQ(heard(), "RELOADING=1\nMONOTONIC_USEC=7000000\n");
  manager->stopping();
  EXPECT_EQ(heard(), "STOPPING=1\n");
  EXPECT_EQ(heard(), "");
}

TEST_F(ServiceManagerTest, LeavesNothingInTheEnvironmentForWorkers) {
  ::setenv("WATCHDOG_USEC", "1000000", 1);
  ASSERT_TRUE(ServiceManager::from_environment());
  EXPECT_EQ(::getenv("NOTIFY_SOCKET"), nullptr);
  EXPECT_EQ(::getenv("WATCHDOG_USEC"), nullptr);
}

TEST_F(ServiceManagerTest, HearsTwiceInItsTimeThatTheLoopTurnsAndANewStatusOnce) {
  ::setenv("WATCHDOG_USEC", "4000000", 1);
  auto manager = ServiceManager::from_environment();
  ASSERT_TRUE(manager);
  manager->ready();
  heard();
  std::string status = "3 jobs";
  const auto tell = [&](int64_t now_ns) {
    manager->advance_to(now_ns, [&] { return status; });
    return heard();
  };
  EXPECT_EQ(tell(kNsPerSec), "WATCHDOG=1\nSTATUS=3 jobs\n");
  EXPECT_EQ(manager->next_event(), 3 * kNsPerSec);
  EXPECT_EQ(tell(3 * kNsPerSec - 1), "");
  EXPECT_EQ(tell(3 * kNsPerSec), "WATCHDOG=1\n");
  status = "4 jobs";
  EXPECT_EQ(tell(5 * kNsPerSec), "WATCHDOG=1\nSTATUS=4 jobs\n");
}

TEST_F(ServiceManagerTest, HearsNoWatchdogThatIsMeantForAnother) {
  ::setenv("WATCHDOG_USEC", "4000000", 1);
  ::setenv("WATCHDOG_PID", "1", 1);
  auto manager = ServiceManager::from_environment();
  ASSERT_TRUE(manager);
  manager->ready();
  heard();
  manager->advance_to(0, [] { return std::string("idle"); });
  EXPECT_EQ(heard(), "STATUS=idle\n");
}

TEST_F(ServiceManagerTest, IsToldNothingWhereNobodyAsks) {
  ::unsetenv("NOTIFY_SOCKET");
  auto manager = ServiceManager::from_environment();
  ASSERT_TRUE(manager);
  manager->ready();
  EXPECT_EQ(manager->next_event(), INT64_MAX);
  EXPECT_EQ(heard(), "");
}

TEST_F(ServiceManagerTest, HandsOverASocketThatOutlivesUs) {
  const std::string path = folder_ + "/p.sock";
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  bind(socket, path);
  ASSERT_EQ(::listen(socket.get(), 8), 0);
  with_handed_over(socket, [&] {
    auto manager = ServiceManager::from_environment();
    if (!manager) {
      return false;
    }
    auto listener = Listener::claim(path, manager->take_socket());
    return listener && listener->fd() == kHandedOver && listener->listen({}) &&
           (::fcntl(kHandedOver, F_GETFD) & FD_CLOEXEC) != 0;
  });
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(ServiceManagerTest, ASocketOfAnotherPathIsRefused) {
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  bind(socket, folder_ + "/other.sock");
  ASSERT_EQ(::listen(socket.get(), 8), 0);
  with_handed_over(socket, [&] {
    auto manager = ServiceManager::from_environment();
    auto listener = Listener::claim(folder_ + "/p.sock", manager->take_socket());
    return !listener && listener.error().message == "the socket that was handed over is " +
                                                        folder_ + "/other.sock, and `socket` is " +
                                                        folder_ +
                                                        "/p.sock; write the same path in both";
  });
}

TEST_F(ServiceManagerTest, WhatIsNoListeningSocketIsRefused) {
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  with_handed_over(socket, [] {
    const auto manager = ServiceManager::from_environment();
    return !manager && manager.error().message.starts_with("what was handed over is no Unix");
  });
}

TEST_F(ServiceManagerTest, SocketsThatWereMeantForAnotherProcessAreLeftAlone) {
  ::setenv("LISTEN_FDS", "2", 1);
  ::setenv("LISTEN_PID", "1", 1);
  auto manager = ServiceManager::from_environment();
  ASSERT_TRUE(manager);
  EXPECT_FALSE(manager->take_socket().valid());
}

}  // namespace
}  // namespace penstock::queue
