// queue_load: one load on one queue, and what came of it as one line of name=value.
//
//   queue_load penstock|beanstalk|redis SOCKET MODE [--clients N] [--depth N] [--seconds S]
//              [--jobs N] [--outstanding N] [--body BYTES] [--priority N] [--queue NAME]
//              [--counter SOCKET]
//
// Modes: enqueue: until the queue has said that the job is safe. whole: jobs are also taken, run
// and acknowledged (by penstock's own workers, counted by its STATUS; by as many consumers as
// producers with the others). sync (penstock): the caller waits for the answer.
#include "tests/bench/queue_load.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "shared/base/clock.h"
#include "shared/base/fd.h"

namespace penstock::load {

void die(std::string_view what, std::string_view detail) {
  std::fprintf(stderr, "queue_load: %.*s %.*s\n", static_cast<int>(what.size()), what.data(),
               static_cast<int>(std::min<size_t>(detail.size(), 300)), detail.data());
  std::exit(1);
}

void record(Tally& tally, int64_t since_ns) {
  ++tally.answered;
  tally.latency_us.push_back(static_cast<uint32_t>((monotonic_ns() - since_ns) / kNsPerUs));
}

namespace {

constexpr int kTurnMs = 5;  // producers that paused look again

struct Wire {
  Fd fd;
  std::unique_ptr<Session> session;
  std::string in;
  size_t unsent = 0;  // offset into session->out
  bool wants_write = false;
};

Fd dial(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    die("the socket's path is too long:", path);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    die("cannot connect to " + path + ":", std::strerror(errno));
  }
  return fd;
}

class Loop {
 public:
  explicit Loop(Tally& tally) : tally_(tally), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

  void add(const std::string& address, std::unique_ptr<Session> session) {
    auto wire = std::make_unique<Wire>(Wire{dial(address), std::move(session), {}, 0, false});
    epoll_event event{.events = EPOLLIN, .data = {.ptr = wire.get()}};
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wire->fd.get(), &event);
    connections_.push_back(std::move(wire));
  }

  // Until `end_ns`, or until `over()`.
  template <typename Over>
  void run(int64_t end_ns, Over over) {
    for (const auto& wire : connections_) {
      wire->session->begin();
      flush(*wire);
    }
    int64_t turn_ns = monotonic_ns();
    while (!over() && monotonic_ns() < end_ns) {
      epoll_event events[64];
      const int count = ::epoll_wait(epoll_.get(), events, 64, kTurnMs);
      for (int i = 0; i < count; ++i) {
        Wire& wire = *static_cast<Wire*>(events[i].data.ptr);
        if ((events[i].events & ~EPOLLOUT) != 0) {
          read(wire);
        }
        flush(wire);
      }
      if (monotonic_ns() - turn_ns > kTurnMs * kNsPerMs) {
        turn_ns = monotonic_ns();
        for (const auto& wire : connections_) {
          wire->session->resume();
          flush(*wire);
        }
      }
    }
  }

 private:
  void read(Wire& wire) {
    char buffer[64 << 10];
    const ssize_t got = ::recv(wire.fd.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) {
      return;
    }
    if (got <= 0) {
      die("the server has closed a connection");
    }
    wire.in.append(buffer, static_cast<size_t>(got));
    wire.in.erase(0, wire.session->take(wire.in));
  }

  void flush(Wire& wire) {
    std::string& out = wire.session->out;
    while (wire.unsent < out.size()) {
      const ssize_t put = ::send(wire.fd.get(), out.data() + wire.unsent, out.size() - wire.unsent,
                                 MSG_DONTWAIT | MSG_NOSIGNAL);
      if (put < 0 && errno != EAGAIN) {
        die("cannot send:", std::strerror(errno));
      }
      if (put < 0) {
        break;
      }
      wire.unsent += static_cast<size_t>(put);
    }
    const bool left = wire.unsent < out.size();
    if (!left) {
      out.clear();
      wire.unsent = 0;
    }
    if (left != wire.wants_write) {
      wire.wants_write = left;
      epoll_event event{.events = left ? EPOLLIN | EPOLLOUT : EPOLLIN, .data = {.ptr = &wire}};
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, wire.fd.get(), &event);
    }
  }

  Tally& tally_;
  Fd epoll_;
  std::vector<std::unique_ptr<Wire>> connections_;
};

double percentile_us(std::vector<uint32_t>& sorted, double share) {
  return sorted.empty()
             ? 0
             : sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))];
}

void print(Tally& tally, double seconds, bool whole) {
  auto& all = tally.latency_us;
  std::sort(all.begin(), all.end());
  const uint64_t done = whole ? tally.completed : tally.answered;
  std::printf(
      "jobs_s=%.1f p50_us=%.0f p99_us=%.0f max_us=%.0f answered=%lu completed=%lu refused=%lu "
      "seconds=%.3f\n",
      static_cast<double>(done) / seconds, percentile_us(all, 0.5), percentile_us(all, 0.99),
      percentile_us(all, 1), tally.answered, tally.completed, tally.refused, seconds);
}

struct Order {
  Peer peer = Peer::kPenstock;
  Plan plan;
  Tally tally;
  double seconds = 3;
};

Order read_arguments(int argc, char** argv) {
  if (argc < 4) {
    die("usage: queue_load penstock|beanstalk|redis SOCKET MODE [--clients N] ...; see "
        "queue_load.cc");
  }
  Order order;
  const std::string_view peer = argv[1];
  order.peer = peer == "penstock"    ? Peer::kPenstock
               : peer == "beanstalk" ? Peer::kBeanstalk
               : peer == "redis"     ? Peer::kRedisStream
                                     : (die("no such peer:", peer), Peer::kPenstock);
  order.plan.address = argv[2];
  order.plan.mode = argv[3];
  for (int i = 4; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const char* const value = argv[i + 1];
    const auto number = static_cast<uint64_t>(std::strtoll(value, nullptr, 10));
    if (name == "--clients") {
      order.plan.clients = static_cast<unsigned>(number);
    } else if (name == "--depth") {
      order.plan.depth = static_cast<unsigned>(number);
    } else if (name == "--seconds") {
      order.seconds = std::strtod(value, nullptr);
    } else if (name == "--jobs") {
      order.tally.wanted = number;
    } else if (name == "--outstanding") {
      order.tally.most_outstanding = number;
    } else if (name == "--body") {
      order.plan.body_bytes = number;
    } else if (name == "--priority") {
      order.plan.priority = static_cast<int64_t>(number);
    } else if (name == "--queue") {
      order.plan.queue = value;
    } else if (name == "--counter") {
      order.plan.counter = value;
    } else {
      die("no such option:", name);
    }
  }
  return order;
}

int run(int argc, char** argv) {
  Order order = read_arguments(argc, argv);
  Tally& tally = order.tally;
  Loop loop(tally);
  Sessions sessions = order.peer == Peer::kPenstock    ? penstock_sessions(order.plan, tally)
                      : order.peer == Peer::kBeanstalk ? beanstalk_sessions(order.plan, tally)
                                                       : redis_sessions(order.plan, tally);
  const bool whole = order.plan.mode == "whole";
  for (auto& session : sessions) {
    const bool counts = whole && &session == &sessions.front() && !order.plan.counter.empty();
    loop.add(counts ? order.plan.counter : order.plan.address, std::move(session));
  }
  const int64_t start_ns = monotonic_ns();
  loop.run(start_ns + static_cast<int64_t>(order.seconds * kNsPerSec), [&] {
    return (whole ? tally.completed : tally.answered) + tally.refused >= tally.wanted;
  });
  print(tally, static_cast<double>(monotonic_ns() - start_ns) / kNsPerSec, whole);
  return 0;
}

}  // namespace
}  // namespace penstock::load

int main(int argc, char** argv) { return penstock::load::run(argc, argv); }
