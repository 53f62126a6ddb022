#include "worker/queue/link/listener.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "shared/wire/status_page.h"
#include "worker/queue/publish/status_page_writer.h"

namespace penstock::queue {
namespace {

class ListenerTest : public testing::Test {
 protected:
  ListenerTest() {
    char name[] = "/tmp/penstock-test-XXXXXX";
    folder_ = ::mkdtemp(name);
    path_ = folder_ + "/p.sock";
  }
  ~ListenerTest() override { std::filesystem::remove_all(folder_); }

  static uint32_t mode_of(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 0777;
  }
  Fd dial() const {
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    return ::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0
               ? std::move(fd)
               : Fd();
  }

  std::string folder_;
  std::string path_;
};

TEST_F(ListenerTest, TheSocketHasItsModeAndTakesConnections) {
  auto listener = Listener::open(path_, {.mode = 0640});
  ASSERT_TRUE(listener) << listener.error().message;
  EXPECT_EQ(mode_of(path_), 0640U);
  Fd fd;
  EXPECT_EQ(listener->accept(fd), Listener::Outcome::kEmpty);
  const Fd client = dial();
  EXPECT_TRUE(client.valid());
  EXPECT_EQ(listener->accept(fd), Listener::Outcome::kAccepted);
}

TEST_F(ListenerTest, ASecondOneIsToldOfTheFirst) {
  auto first = Listener::open(path_, {});
  ASSERT_TRUE(first);
  auto second = Listener::open(path_, {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message, "another penstockd is running on " + path_ +
                                        "; stop it first, or give this one another `socket`");
  EXPECT_TRUE(dial().valid());
}

TEST_F(ListenerTest, AStaleSocketIsReplaced) {
  {
    const Fd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  auto listener = Listener::open(path_, {});
  ASSERT_TRUE(listener) << listener.error().message;
  EXPECT_TRUE(dial().valid());
}

TEST_F(ListenerTest, WhatIsNoSocketIsLeftAlone) {
  std::ofstream(path_) << "precious";
  auto listener = Listener::open(path_, {});
  ASSERT_FALSE(listener);
  EXPECT_EQ(listener.error().message,
            path_ + " exists and is not a socket; move it away, or change `socket`");
  EXPECT_TRUE(std::filesystem::is_regular_file(path_));
}

TEST_F(ListenerTest, AGroupThatIsNotThereIsNamed) {
  auto listener = Listener::open(path_, {.group = "no-such-group"});
  ASSERT_FALSE(listener);
  EXPECT_EQ(listener.error().message, "there is no group 'no-such-group'; correct `socket_group`");
}

TEST_F(ListenerTest, TheSocketIsRemovedAtTheEnd) {
  { auto listener = Listener::open(path_, {}); }
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(ListenerTest, AQueueGetsTheRowOfOneThatIsGoneWhereThereIsNoOther) {
  auto writer = StatusPageWriter::create(path_ + ".status", {.mode = 0660});
  ASSERT_TRUE(writer) << writer.error().message;
  const auto name = [](size_t i) { return "queue" + std::to_string(i); };
  for (size_t i = 0; i < wire::kMaxQueues; ++i) {
    writer->set(name(i), {.state = wire::QueueState::kOpen});
  }
  writer->retire(name(3));
  writer->set("fresh", {.state = wire::QueueState::kOpen, .length = 5});
  writer->heartbeat(1, 1);
  wire::StatusPage page;
  const Fd fd(::open((path_ + ".status").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::pread(fd.get(), static_cast<void*>(&page), sizeof page, 0),
            static_cast<ssize_t>(sizeof page));
  ASSERT_NE(page.find("fresh"), nullptr);
  EXPECT_EQ(page.find("fresh")->length.load(), 5U);
  EXPECT_EQ(page.find(name(3)), nullptr);
  EXPECT_NE(page.find(name(4)), nullptr);
  writer->set("one more", {.state = wire::QueueState::kOpen});  // there is no row for it
  writer->heartbeat(2, 2);
}

TEST_F(ListenerTest, ReadersSeeTheStatusPage) {
  const std::string page_path = path_ + ".status";
  auto writer = StatusPageWriter::create(page_path, {.mode = 0660});
  ASSERT_TRUE(writer) << writer.error().message;
  EXPECT_EQ(mode_of(page_path), 0640U);
  writer->heartbeat(123, 123);
  writer->set("default", {.state = wire::QueueState::kFull, .length = 7, .retry_after_s = 9});
  writer->set("video", {.state = wire::QueueState::kOpen});
  writer->flush(200);
  writer->set("default", {.state = wire::QueueState::kFull, .length = 8, .retry_after_s = 9});
  writer->flush(201);  // a number only: it waits
  EXPECT_EQ(writer->next_event(), 200 + StatusPageWriter::kWriteNs);
  const Fd fd(::open(page_path.c_str(), O_RDONLY | O_CLOEXEC));
  void* const memory =
      ::mmap(nullptr, sizeof(wire::StatusPage), PROT_READ, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(memory, MAP_FAILED);
  const auto& page = *static_cast<const wire::StatusPage*>(memory);
  EXPECT_EQ(page.magic.load(), wire::kStatusMagic);
  EXPECT_EQ(page.heartbeat_ns.load(), 123);
  ASSERT_NE(page.find("default"), nullptr);
  EXPECT_EQ(page.find("default")->length.load(), 7U);
  writer->flush(writer->next_event());
  EXPECT_EQ(page.find("default")->length.load(), 8U);
  EXPECT_EQ(writer->next_event(), INT64_MAX);
  EXPECT_EQ(page.find("default")->retry_after_s.load(), 9U);
  EXPECT_NE(page.find("video"), nullptr);
  EXPECT_EQ(page.find("audio"), nullptr);
  ::munmap(memory, sizeof(wire::StatusPage));
}

}  // namespace
}  // namespace penstock::queue
