// Transfers over a real socket, whose other end is the test's.
#include "worker/engines/http/transfers.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "shared/base/clock.h"

namespace penstock::http_engine {
namespace {

constexpr std::string_view kAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

bool is_readable(int fd, int timeout_ms) {
  pollfd poll{fd, POLLIN, 0};
  return ::poll(&poll, 1, timeout_ms) == 1;
}

class TransfersTest : public ::testing::Test, private Transfers::Receiver {
 protected:
  TransfersTest() : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const at = reinterpret_cast<sockaddr*>(&address);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(listener_.get(), at, size), 0);
    EXPECT_EQ(::listen(listener_.get(), 8), 0);
    EXPECT_EQ(::getsockname(listener_.get(), at, &size), 0);
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/v1";
  }

  void start(uint64_t id, std::string_view method = "POST", std::string_view body = "{}") {
    transfers_.start(
        id, {.method = std::string(method), .url = url_, .headers = {"X-A: b"}, .body = {body}},
        *this);
  }

  // Steps until `fd` has something to read.
  void step_until_readable(int fd) {
    for (int i = 0; i < 1000 && !is_readable(fd, 0); ++i) {
      step();
      is_readable(transfers_.fd(), 10);
    }
    ASSERT_TRUE(is_readable(fd, 0));
  }
  void step() {
    for (auto& ended : transfers_.step(monotonic_ns())) {
      ended_.push_back(std::move(ended));
    }
  }
  Transfers::Ended end_of(uint64_t id) {
    for (int i = 0; i < 1000; ++i) {
      step();
      const auto found = std::find_if(ended_.begin(), ended_.end(),
                                      [&](const Transfers::Ended& each) { return each.id == id; });
      if (found != ended_.end()) {
        return *found;
      }
      is_readable(transfers_.fd(), 10);
    }
    ADD_FAILURE() << "no end of " << id;
    return {};
  }

  Fd accept() {
    step_until_readable(listener_.get());
    return Fd(::accept(listener_.get(), nullptr, nullptr));
  }
  // One read of what the server got.
  std::string read(const Fd& server) {
    step_until_readable(server.get());
    char bytes[65536];
    const ssize_t got = ::recv(server.get(), bytes, sizeof bytes, 0);
    return {bytes, static_cast<size_t>(std::max<ssize_t>(got, 0))};
  }
  static void answer(const Fd& server, std::string_view bytes = kAnswer) {
    ASSERT_EQ(::send(server.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }

  bool on_header(std::string_view) override { return true; }
  bool on_body(std::string_view bytes) override {
    body_.append(bytes);
    return true;
  }

  Fd listener_;
  std::string url_;
  std::string body_;
  std::vector<Transfers::Ended> ended_;
  Transfers transfers_{{.connect_ns = 5 * kNsPerSec}};
};

TEST_F(TransfersTest, HeadAndBodyLeaveInOneWrite) {
  const std::string body(20'000, 'x');
  start(1, "POST", body);
  const Fd server = accept();
  const std::string request = read(server);
  EXPECT_TRUE(request.starts_with("POST /v1 HTTP/1.1\r\n")) << request.substr(0, 200);
  EXPECT_NE(request.find("\r\nX-A: b\r\n"), request.npos);
  EXPECT_TRUE(request.ends_with("\r\n\r\n" + body));
}

TEST_F(TransfersTest, AHandleIsUsedAgainForAnotherMethodAndUrl) {
  start(1);
  const Fd server = accept();
  read(server);
  answer(server);
  EXPECT_TRUE(end_of(1).end.whole);
  url_ += "/models?a=b";
  start(2, "GET", "");
  EXPECT_TRUE(read(server).starts_with("GET /v1/models?a=b HTTP/1.1\r\n"));
  answer(server);
  const TransferEnd second = end_of(2).end;
  EXPECT_TRUE(second.whole && second.reused);
  start(3, "PUT", "more");
  const std::string third = read(server);
  EXPECT_TRUE(third.starts_with("PUT /v1/models?a=b HTTP/1.1\r\n")) << third;
  EXPECT_TRUE(third.ends_with("\r\n\r\nmore")) << third;
}

TEST_F(TransfersTest, ARequestOnAKeptConnectionThatDiesIsNotSentAgain) {
  start(1);
  Fd server = accept();
  read(server);
  answer(server);
  end_of(1);
  start(2);
  EXPECT_TRUE(read(server).starts_with("POST"));
  server.reset();
  const TransferEnd end = end_of(2).end;
  EXPECT_FALSE(end.whole);
  EXPECT_TRUE(end.connected);
  EXPECT_TRUE(end.reused);
  EXPECT_FALSE(end.heard);
  EXPECT_FALSE(is_readable(listener_.get(), 0)) << "not even a connection was made for it";
}

TEST_F(TransfersTest, AKeptConnectionThatIsClosedWakesNobodyTwice) {
  start(1);
  Fd server = accept();
  read(server);
  answer(server);
  end_of(1);
  EXPECT_FALSE(is_readable(transfers_.fd(), 0));
  server.reset();
  EXPECT_TRUE(is_readable(transfers_.fd(), 1000));
  step();
  EXPECT_FALSE(is_readable(transfers_.fd(), 0));
  start(2);
  const Fd other = accept();
  EXPECT_TRUE(read(other).starts_with("POST"));
  answer(other);
  EXPECT_TRUE(end_of(2).end.whole);
  EXPECT_EQ(body_, "hihi");
}

TEST_F(TransfersTest, WhatIsNoUrlIsAnEndWithoutAConnection) {
  const std::string good = url_;
  url_ = "http://127.0.0.1:99999999/";
  start(1);
  EXPECT_FALSE(end_of(1).end.whole);
  url_ = good;
  start(2);
  const Fd server = accept();
  EXPECT_TRUE(read(server).starts_with("POST /v1 "));
}

}  // namespace
}  // namespace penstock::http_engine
