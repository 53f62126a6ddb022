// A connection to Redis over a slow link: what takes long is no sign of death while it moves.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

// Between a client and a redis-server, in each direction, so many bytes each ten milliseconds.
class SlowLink {
 public:
  SlowLink(const RedisServer& server, size_t bytes)
      : path_(server.socket() + ".slow"), to_(server.socket()), bytes_(bytes) {
    listener_ = ::socket(AF_UNIX, SOCK_STREAM, 0);
    const sockaddr_un address = at(path_);
    ::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    ::listen(listener_, 8);
    thread_ = std::thread([this] { accept(); });
  }
  ~SlowLink() {
    over_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    for (std::thread& each : relays_) {
      each.join();
    }
    ::close(listener_);
  }
  const std::string& socket() const { return path_; }
  size_t connections() const { return connections_; }

 private:
  static sockaddr_un at(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    return address;
  }

  void accept() {
    for (int from = 0; (from = ::accept(listener_, nullptr, nullptr)) >= 0;) {
      ++connections_;
      relays_.emplace_back([this, from] { relay(from); });
    }
  }

  void relay(int from) {
    const int to = ::socket(AF_UNIX, SOCK_STREAM, 0);
    const sockaddr_un address = at(to_);
    bool goes_on = ::connect(to, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    std::vector<char> bytes(bytes_);
    while (goes_on && !over_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      for (const auto& [in, out] : {std::pair{from, to}, {to, from}}) {
        const ssize_t got = ::recv(in, bytes.data(), bytes.size(), MSG_DONTWAIT);
        goes_on = goes_on && got != 0;
        for (ssize_t sent = 0; sent < got;) {
          const ssize_t some =
              ::send(out, bytes.data() + sent, static_cast<size_t>(got - sent), MSG_NOSIGNAL);
          if (some <= 0) {
            goes_on = false;
            break;
          }
          sent += some;
        }
      }
    }
    ::close(from);
    ::close(to);
  }

  const std::string path_, to_;
  const size_t bytes_;
  int listener_ = -1;
  std::atomic<bool> over_ = false;
  std::atomic<size_t> connections_ = 0;
  std::vector<std::thread> relays_;
  std::thread thread_;
};

TEST(SlowLinkTest, WhatTakesLongIsWaitedForWhileItsBytesMove) {
  RedisServer server;
  SlowLink link(server, 2500);
  OrderClient client(link.socket());
  SharedOrder order(client.servers(), {.name = "q", .max_length = 10}, 60'000);
  ASSERT_TRUE(client.until_ready());
  const size_t before = link.connections();
  // More than the kernel takes at once, and of that more than goes out in a second.
  const std::string body(600'000, 'x');
  const auto added = client.get<SharedOrder::Added>(
      [&](auto then) { return order.add({.id = "a", .lane = "m", .body = body}, then); });
  EXPECT_EQ(added.admission, SharedOrder::Admission::kAdded);
  const auto known =
      client.get<SharedOrder::Known>([&](auto then) { return order.look("a", 0, then); });
  EXPECT_EQ(known.result, body);
  EXPECT_EQ(link.connections(), before);
}

// Bytes of later requests go into buffers, which is no sign of life.
TEST(SlowLinkTest, AServerThatTakesNothingIsGivenUpAfterASecond) {
  RedisServer server;
  OrderClient client(server.socket());
  SharedOrder order(client.servers(), {.name = "q", .max_length = 10}, 60'000);
  ASSERT_TRUE(client.until_ready());
  server.stop_answering();
  const int64_t began_ns = monotonic_ns();
  int64_t next_ns = 0;
  const bool lost = client.until([&] {
    if (monotonic_ns() >= next_ns && order.ready()) {
      next_ns = monotonic_ns() + 20 * kNsPerMs;
      order.look("a", 0, [](SharedOrder::Answer<SharedOrder::Known>&) {});
    }
    return !client.lost().empty();
  });
  server.go_on();
  EXPECT_TRUE(lost);
  EXPECT_LT(monotonic_ns() - began_ns, 3 * kNsPerSec);
}

}  // namespace
}  // namespace penstock::queue
