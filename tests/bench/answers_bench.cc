// BENCH.md Q10: streams of tokens from one host to another through Redis
// (worker/queue/shared_answers). One process says what the jobs answer, another hears it, and each
// token brings the time at which it was said.
//
//   answers_bench [CALLERS [TOKENS_PER_S [SECONDS]]]
//
// Once with jobs that nobody may resume (PUBLISH alone), once with streams (XADD, too). Callers are
// not in step: each has its own millisecond. A token is an event of 200 bytes.
//
//   delay_p50, _p99, _max   ms from a token's saying to its telling
//   gap_p99                 ms between two tokens of a caller, beyond what lay between their
//   sayings redis, writer, reader   % of a core
// Lines are `name=value` for the bench's table.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "shared/base/bytes.h"
#include "tests/fixtures/redis_server.h"
#include "tests/unit/shared_answers/hosts.h"
#include "worker/queue/shared_answers/answer_reader.h"
#include "worker/queue/shared_answers/answer_writer.h"

namespace penstock::queue {
namespace {

constexpr size_t kTokenBytes = 200;
constexpr char kKey[] = "test:q1:{q}:";
constexpr char kHome[] = "home-one";

struct Load {
  size_t callers = 500;
  int64_t per_s = 50;
  int64_t seconds = 10;
  bool resumable = false;
  int64_t every_ns() const { return kNsPerSec / per_s; }
  size_t tokens() const { return static_cast<size_t>(per_s * seconds); }
};

double cpu_s() {
  rusage used;
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}
double cpu_s(const RedisServer& server) {
  const std::string info = server.ask("INFO cpu").value_or("");
  const auto value = [&](const std::string& name) {
    return std::strtod(info.c_str() + info.find(name) + name.size(), nullptr);
  };
  return value("used_cpu_sys:") + value("used_cpu_user:");
}

std::string name_of(size_t caller) {
  return "job_01JDXHZZZZZZZZZZZZZZZZ" + std::to_string(1000 + caller);
}

// Of the process that runs the jobs. Its CPU, in seconds.
double say(const std::string& socket, const Load& load) {
  Turns turns;
  Host host(turns, socket);
  AnswerWriter writer(host.servers, kKey, {});
  turns.until([&] { return host.up(); });
  const int64_t begin_ns = monotonic_ns() + 100 * kNsPerMs;
  std::vector<size_t> said(load.callers);
  const auto due_ns = [&](size_t caller) {
    const int64_t own_ms = static_cast<int64_t>(caller) * (load.every_ns() / kNsPerMs) /
                           static_cast<int64_t>(load.callers);
    return begin_ns + own_ms * kNsPerMs + static_cast<int64_t>(said[caller]) * load.every_ns();
  };
  for (size_t caller = 0; caller < load.callers; ++caller) {
    writer.begin(name_of(caller), 1, kHome, load.resumable);
  }
  const double before_s = cpu_s();
  std::string token(kTokenBytes, 'x');
  int64_t next_ns = begin_ns;
  size_t over = 0;
  turns.next_event = [&] { return std::min(writer.next_event(), next_ns); };
  turns.on_turn = [&](int64_t now_ns) {
    if (now_ns >= next_ns) {
      next_ns = now_ns - now_ns % kNsPerMs + kNsPerMs;
      for (size_t caller = 0; caller < load.callers; ++caller) {
        while (said[caller] < load.tokens() && due_ns(caller) <= now_ns) {
          store_le(token.data(), monotonic_ns());
          writer.say(name_of(caller), Part::Kind::kChunk, token);
          if (++said[caller] == load.tokens()) {
            writer.end(name_of(caller));
            ++over;
          }
        }
      }
    }
    writer.advance_to(now_ns);
  };
  while (over < load.callers || writer.waiting_bytes() > 0) {
    turns.until([&] { return over == load.callers && writer.waiting_bytes() == 0; });
  }
  if (writer.counts().dropped + writer.counts().unknown + writer.counts().unheard > 0) {
    std::printf("NOT_DELIVERED=%zu\n", static_cast<size_t>(writer.counts().dropped));
  }
  return cpu_s() - before_s;
}

class Hearing final : redis::Subscription::Listener {
 public:
  Hearing(const std::string& socket, const Load& load) : host_(turns_, socket), load_(load) {
    host_.subscription.listen(std::string(kKey) + "c|" + kHome, *this);
    for (size_t caller = 0; caller < load.callers; ++caller) {
      callers_.push_back(std::make_unique<Caller>(*this));
      following_.push_back(reader_.follow(name_of(caller), {}, load.resumable, *callers_.back()));
    }
    turns_.next_event = [this] { return reader_.next_event(); };
    turns_.on_turn = [this](int64_t now_ns) { reader_.advance_to(now_ns); };
    turns_.until([this] { return listening_; });
  }
  void hear() {
    while (over_ < load_.callers) {
      turns_.until([this] { return over_ == load_.callers; });
    }
  }
  size_t lost() const { return lost_; }

  std::vector<double> delays_ms, gaps_ms;

 private:
  struct Caller final : AnswerReader::Follower {
    explicit Caller(Hearing& its) : hearing(its) {}
    void on_part(const Part& part) override {
      if (part.kind == Part::Kind::kChunk) {
        const int64_t told_ns = monotonic_ns();
        const auto said_ns = load_le<int64_t>(part.bytes.data());
        const double delay_ms = static_cast<double>(told_ns - said_ns) / 1e6;
        hearing.delays_ms.push_back(delay_ms);
        hearing.gaps_ms.push_back(before_ms < 0 ? 0 : delay_ms - before_ms);
        before_ms = delay_ms;
      }
      hearing.over_ += part.kind == Part::Kind::kEnd ? 1 : 0;
    }
    void on_restarted(uint64_t) override {}
    void on_lost() override {
      ++hearing.lost_;
      ++hearing.over_;
    }
    Hearing& hearing;
    double before_ms = -1;
  };

  void on_listening(std::string_view) override { listening_ = true; }
  void on_message(std::string_view, std::string_view text) override { reader_.on_message(text); }

  Turns turns_;
  Host host_;
  const Load load_;
  AnswerReader reader_{host_.servers, host_.subscription, kKey, {}};
  std::vector<std::unique_ptr<Caller>> callers_;
  std::vector<std::unique_ptr<AnswerReader::Following>> following_;
  bool listening_ = false;
  size_t over_ = 0, lost_ = 0;
};

double at(std::vector<double>& values, double share) {
  const auto place = static_cast<size_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(place), values.end());
  return values[place];
}

void measure(const Load& load) {
  const char* const name = load.resumable ? "streams" : "channel";
  const RedisServer server;
  int pipe_fds[2];
  if (::pipe(pipe_fds) != 0) {
    std::abort();
  }
  Hearing hearing(server.socket(), load);
  std::fflush(stdout);
  const pid_t writer = ::fork();
  if (writer == 0) {
    const double spent_s = say(server.socket(), load);
    std::fflush(stdout);
    ::_exit(::write(pipe_fds[1], &spent_s, sizeof spent_s) == sizeof spent_s ? 0 : 1);
  }
  const double redis_s = cpu_s(server), reader_s = cpu_s();
  hearing.hear();
  const auto seconds = static_cast<double>(load.seconds);
  const double redis = (cpu_s(server) - redis_s) / seconds, reader = (cpu_s() - reader_s) / seconds;
  double writer_s = 0;
  if (::read(pipe_fds[0], &writer_s, sizeof writer_s) != sizeof writer_s) {
    std::abort();
  }
  ::waitpid(writer, nullptr, 0);
  ::close(pipe_fds[0]);
  ::close(pipe_fds[1]);
  std::printf("%s_delay_p50=%.2f\n%s_delay_p99=%.2f\n%s_delay_max=%.2f\n", name,
              at(hearing.delays_ms, 0.5), name, at(hearing.delays_ms, 0.99), name,
              at(hearing.delays_ms, 1));
  std::printf("%s_gap_p99=%.2f\n", name, at(hearing.gaps_ms, 0.99));
  std::printf("%s_redis=%.1f\n%s_writer=%.1f\n%s_reader=%.1f\n", name, 100 * redis, name,
              100 * writer_s / seconds, name, 100 * reader);
  std::printf("%s_tokens=%zu\n%s_lost=%zu\n", name, hearing.delays_ms.size(), name, hearing.lost());
}

}  // namespace
}  // namespace penstock::queue

int main(int argc, char** argv) {
  penstock::queue::Load load;
  load.callers = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : load.callers;
  load.per_s = argc > 2 ? std::strtoll(argv[2], nullptr, 10) : load.per_s;
  load.seconds = argc > 3 ? std::strtoll(argv[3], nullptr, 10) : load.seconds;
  for (const bool resumable : {false, true}) {
    load.resumable = resumable;
    penstock::queue::measure(load);
  }
}
