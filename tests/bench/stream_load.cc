// Streams of tokens: the server that makes them and the callers that read them. engine_bench.py.
//
//   stream_load serve PORT TOKENS RATE     answers each POST with so many events, so many a second,
//                                          and any GET with what it has seen: busy_ns, and
//                                          the peak since the GET before
//   stream_load read PORT KEY CALLERS SECONDS PAUSE_MS
//                                          each caller asks, reads to the end, pauses, asks again
//
// `read` says "begun" once each caller has had an event, and after SECONDS more what it measured:
// the time to the first event of each answer, and from one event to the next.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/event_loop.h"

namespace penstock {
namespace {

constexpr std::string_view kHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
constexpr std::string_view kLastChunk = "0\r\n\r\n";
constexpr std::string_view kEvent = "data: {";

void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

sockaddr_in local(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

Fd stream_socket() {
  Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

std::string chunk(const std::string& text) {
  char size[16];
  std::snprintf(size, sizeof size, "%zx\r\n", text.size());
  return size + text + "\r\n";
}

std::string event(const char* finish, const std::string& usage = "") {
  return "data: "
         "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":"
         "\"mock\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"},\"finish_reason\":" +
         std::string(finish) + "}]" + usage + "}\n\n";
}

// ---- the server ----

class Server;

struct Client final : EventLoop::Handler {
  Server& server;
  Fd fd;
  std::string in;
  int left = 0;  // events of its answer
  int64_t begun_ns = 0;

  Client(Server& server_, Fd fd_) : server(server_), fd(std::move(fd_)) {}
  void on_events(uint32_t) override;
};

class Server final : public EventLoop::Handler {
 public:
  Server(EventLoop& loop, int port, int tokens, double rate)
      : loop_(loop), tokens_(tokens), period_ns_(static_cast<int64_t>(kNsPerSec / rate)) {
    listener_ = stream_socket();
    const int on = 1;
    ::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const sockaddr_in address = local(port);
    if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener_.get(), 4096) != 0 || !loop_.add(listener_.get(), EPOLLIN, this)) {
      fail("stream_load: bind");
    }
  }

  void run() {
    for (;;) {
      loop_.run_once(monotonic_ns(), due_.empty() ? INT64_MAX : due_.front().at_ns);
      for (const int64_t now_ns = monotonic_ns(); !due_.empty() && due_.front().at_ns <= now_ns;) {
        const Due due = due_.front();
        due_.pop_front();
        const auto found = clients_.find(due.fd);
        if (found != clients_.end() && found->second->begun_ns == due.begun_ns) {
          say_next(*found->second, due.at_ns);
        }
      }
    }
  }

  void on_events(uint32_t) override {
    Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd.valid()) {
      const int number = fd.get();
      const int on = 1;
      ::setsockopt(number, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      auto& client = clients_[number] = std::make_unique<Client>(*this, std::move(fd));
      if (!loop_.add(number, EPOLLIN, client.get())) {
        fail("stream_load: epoll");
      }
    }
  }

  void take(Client& client) {
    const size_t head = client.in.find("\r\n\r\n");
    if (head == std::string::npos) {
      return;
    }
    if (client.in.starts_with("GET")) {
      count();
      client.in.clear();
      const std::string body =
          "{\"busy_ns\":" + std::to_string(busy_ns_) + ",\"peak\":" + std::to_string(peak_) + "}";
      peak_ = running_;
      send(client,
           "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
      return;
    }
    const size_t at = client.in.find("ontent-Length: ");
    const size_t size = at < head ? std::strtoul(client.in.c_str() + at + 15, nullptr, 10) : 0;
    if (client.in.size() < head + 4 + size) {
      return;
    }
    client.in.clear();
    count();
    peak_ = std::max(peak_, ++running_);
    client.left = tokens_;
    client.begun_ns = monotonic_ns();
    send(client, kHead);
    due_.push_back({client.begun_ns + period_ns_, client.begun_ns, client.fd.get()});
  }

  void close(Client& client) {
    if (client.left > 0) {
      count();
      --running_;
    }
    const int fd = client.fd.get();
    loop_.remove(fd, &client);
    clients_.erase(fd);
  }

 private:
  struct Due {
    int64_t at_ns;
    int64_t begun_ns;
    int fd;
  };

  void send(Client& client, std::string_view bytes) {
    if (::send(client.fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(bytes.size())) {
      client.left = client.left > 0 ? 1 : 0;  // it reads too slowly: this answer is cut
    }
  }

  void say_next(Client& client, int64_t due_ns) {
    if (--client.left > 0) {
      send(client, event_);
      due_.push_back({due_ns + period_ns_, client.begun_ns, client.fd.get()});
      return;
    }
    count();
    --running_;
    send(client, last_);
  }

  // The answers under way, over the time.
  void count() {
    const int64_t now_ns = monotonic_ns();
    busy_ns_ += running_ * (now_ns - counted_ns_);
    counted_ns_ = now_ns;
  }

  EventLoop& loop_;
  const int tokens_;
  const int64_t period_ns_;
  const std::string event_ = chunk(event("null"));
  const std::string last_ =
      chunk(event("\"stop\"", ",\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":20}")) +
      chunk("data: [DONE]\n\n") + std::string(kLastChunk);
  Fd listener_;
  std::unordered_map<int, std::unique_ptr<Client>> clients_;
  std::deque<Due> due_;
  int64_t running_ = 0;
  int64_t peak_ = 0;
  int64_t busy_ns_ = 0;
  int64_t counted_ns_ = monotonic_ns();
};

void Client::on_events(uint32_t) {
  char bytes[65536];
  const ssize_t got = ::recv(fd.get(), bytes, sizeof bytes, MSG_DONTWAIT);
  if (got <= 0) {
    return server.close(*this);
  }
  in.append(bytes, static_cast<size_t>(got));
  server.take(*this);
}

// ---- the callers ----

class Readers;

struct Reader final : EventLoop::Handler {
  Readers& all;
  Fd fd;
  std::string tail;  // of what was read: what may be half a mark
  int64_t asked_ns = 0;
  int64_t last_ns = 0;  // when its last event came; 0: none of this answer has

  explicit Reader(Readers& readers) : all(readers) {}
  void on_events(uint32_t) override;
};

class Readers {
 public:
  Readers(EventLoop& loop, int port, const std::string& key, size_t callers, int64_t pause_ns)
      : loop_(loop), address_(local(port)), pause_ns_(pause_ns) {
    const std::string body =
        R"({"model":"mock","stream":true,"messages":[{"role":"user","content":"Say something."}]})";
    request_ =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nX-Api-Key: " + key +
        "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
        "\r\n\r\n" + body;
    for (size_t i = 0; i < callers; ++i) {
      readers_.push_back(std::make_unique<Reader>(*this));
      connect(*readers_.back());
      ask(*readers_.back());
    }
  }

  void run(int64_t seconds) {
    while (heard_ < readers_.size()) {
      turn();
    }
    std::puts("begun");
    std::fflush(stdout);
    gaps_.clear();
    firsts_.clear();
    const int64_t begun_ns = monotonic_ns();
    while (monotonic_ns() < begun_ns + seconds * kNsPerSec) {
      turn();
    }
    const double took_s = static_cast<double>(monotonic_ns() - begun_ns) / kNsPerSec;
    std::printf(
        "events=%zu seconds=%.3f gap_p50=%.3f gap_p99=%.3f answers=%zu first_p50=%.3f "
        "first_p99=%.3f\n",
        gaps_.size() + firsts_.size(), took_s, at(gaps_, 0.5), at(gaps_, 0.99), firsts_.size(),
        at(firsts_, 0.5), at(firsts_, 0.99));
  }

  void heard(Reader& reader, std::string_view bytes) {
    const int64_t now_ns = monotonic_ns();
    const size_t before = reader.tail.size();
    reader.tail.append(bytes);
    for (size_t from = 0; (from = reader.tail.find(kEvent, from)) != std::string::npos; ++from) {
      if (reader.last_ns == 0) {
        ++heard_;
        firsts_.push_back(now_ns - reader.asked_ns);
      } else {
        gaps_.push_back(now_ns - reader.last_ns);
      }
      reader.last_ns = now_ns;
    }
    if (reader.tail.find("\r\n" + std::string(kLastChunk)) != std::string::npos) {
      reader.tail.clear();
      pauses_.push_back({now_ns + pause_ns_, &reader});
      return;
    }
    if (before == 0 && !reader.tail.starts_with("HTTP/1.1 200") && reader.last_ns == 0) {
      std::fprintf(stderr, "stream_load: %s\n", reader.tail.substr(0, 400).c_str());
      std::exit(1);
    }
    reader.tail.erase(0, reader.tail.size() - std::min<size_t>(reader.tail.size(), 6));
  }

  void lost(Reader& reader) {
    loop_.remove(reader.fd.get(), &reader);
    connect(reader);
    ask(reader);
  }

 private:
  struct Pause {
    int64_t until_ns;
    Reader* reader;
  };

  void connect(Reader& reader) {
    reader.fd = stream_socket();
    if (::connect(reader.fd.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof address_) !=
            0 ||
        !loop_.add(reader.fd.get(), EPOLLIN, &reader)) {
      fail("stream_load: connect");
    }
  }

  void ask(Reader& reader) {
    reader.tail.clear();
    reader.last_ns = 0;
    reader.asked_ns = monotonic_ns();
    ::send(reader.fd.get(), request_.data(), request_.size(), MSG_NOSIGNAL);
  }

  void turn() {
    const int64_t now_ns = monotonic_ns();
    loop_.run_once(now_ns, pauses_.empty() ? now_ns + 100 * kNsPerMs : pauses_.front().until_ns);
    while (!pauses_.empty() && pauses_.front().until_ns <= monotonic_ns()) {
      Reader& reader = *pauses_.front().reader;
      pauses_.pop_front();
      ask(reader);
    }
  }

  // In milliseconds.
  static double at(std::vector<int64_t>& sorted, double part) {
    if (sorted.empty()) {
      return 0;
    }
    std::sort(sorted.begin(), sorted.end());
    const auto place = static_cast<size_t>(part * static_cast<double>(sorted.size() - 1));
    return static_cast<double>(sorted[place]) / kNsPerMs;
  }

  EventLoop& loop_;
  const sockaddr_in address_;
  const int64_t pause_ns_;
  std::string request_;
  std::vector<std::unique_ptr<Reader>> readers_;
  std::deque<Pause> pauses_;
  size_t heard_ = 0;  // first events
  std::vector<int64_t> gaps_;
  std::vector<int64_t> firsts_;
};

void Reader::on_events(uint32_t) {
  char bytes[65536];
  const ssize_t got = ::recv(fd.get(), bytes, sizeof bytes, MSG_DONTWAIT);
  if (got > 0) {
    all.heard(*this, {bytes, static_cast<size_t>(got)});
  } else if (got == 0) {
    all.lost(*this);
  }
}

int run(int count, char** words) {
  const std::string_view what = count > 1 ? words[1] : "";
  auto loop = EventLoop::create();
  if (!loop) {
    fail("stream_load: epoll");
  }
  if (what == "serve" && count == 5) {
    Server(*loop, std::atoi(words[2]), std::atoi(words[3]), std::atof(words[4])).run();
  } else if (what == "read" && count == 7) {
    Readers(*loop, std::atoi(words[2]), words[3], std::strtoul(words[4], nullptr, 10),
            std::atoi(words[6]) * kNsPerMs)
        .run(std::atoi(words[5]));
    return 0;
  }
  std::fputs("stream_load serve PORT TOKENS RATE, or read PORT KEY CALLERS SECONDS PAUSE_MS\n",
             stderr);
  return 2;
}

}  // namespace
}  // namespace penstock

int main(int count, char** words) { return penstock::run(count, words); }
