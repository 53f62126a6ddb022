// The scripts of the shared order (worker/queue/shared_order): what each takes in redis-server,
// with 1,000 and 1,000,000 jobs queued of 10,000 owners in four lanes and two classes, deadlines
// and aging on; and how many jobs a second one connection finishes and takes.
//
//   order_bench [N...]
//
// Times are Redis's own (INFO commandstats), so the trip is not in them; each is the median of
// kRounds. What is taken is finished,
// and what leaves is added again, so that the queue's length stays what it is said to be.
//
// MEM is what Redis needs for a queued job beside its body, of 200 bytes.
// Lines are `name=value` for the bench's table.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "shared/base/clock.h"
#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

constexpr size_t kBody = 200;
constexpr uint64_t kOwners = 10'000;
constexpr size_t kRounds = 40;
constexpr size_t kEach = 100;     // requests of a kind in a round
constexpr size_t kPending = 256;  // at a time
constexpr char kHost[] = "host-one";
constexpr std::array<std::string_view, 4> kLanes = {"m", "m", "n", ""};

class Bench {
 public:
  explicit Bench(size_t jobs) : jobs_(jobs) {
    client_.get<SharedOrder::Renewed>([&](auto then) {
      return order_.renew(kHost, SharedOrder::Life::kJoins, int64_t{1} << 40, then);
    });
    const double before = number_of("memory", "used_memory:");
    add(jobs);
    std::printf("MEM_%zu=%.0f\n", jobs,
                (number_of("memory", "used_memory:") - before) / static_cast<double>(jobs) - kBody);
  }

  void measure() {
    for (size_t round = 0; round < kRounds; ++round) {
      timed("add", [&] { add(kEach); });
      timed("take_1", [&] { take(kEach, 1); });
      timed("finish", [&] { finish(); });
      timed("position_1", [&] { position(kEach, 1); });
      timed("position_32", [&] { position(kEach / 10, 32); });
      add(16 * kEach / 4);
      timed("take_16", [&] { take(kEach / 4, 16); });
      finish();
      add(2 * kEach);
      take(kEach, 1);
      timed("finish_and_take_1", [&] { finish_and_take(kEach); });
      timed("requeue", [&] { requeue(); });
      take(kEach, 1);
      finish();
      timed("advance", [&] { advance(kEach); });
    }
    for (auto& [name, spent] : spent_) {
      std::nth_element(spent.begin(), spent.begin() + kRounds / 2, spent.end());
      std::printf("%s_%zu=%.1f\n", name.c_str(), jobs_, spent[kRounds / 2]);
    }
  }

  // One connection, each request with what was taken by another one before it.
  void rate() {
    constexpr size_t kJobs = 20'000;
    for (const size_t each : {size_t{1}, size_t{8}}) {
      add(std::min(jobs_, kJobs));
      take(64, each);
      const int64_t begin_ns = monotonic_ns();
      const size_t turns = std::min(jobs_, kJobs) / each - 64;
      chain_ = turns;
      while (!held_.empty()) {
        const size_t have = std::min(each, held_.size());
        std::vector<SharedOrder::Taken> some(held_.end() - static_cast<ptrdiff_t>(have),
                                             held_.end());
        held_.resize(held_.size() - have);
        next(std::move(some), each);
      }
      while (!client_.until([&] { return pending_ == 0; })) {
      }
      const double seconds = static_cast<double>(monotonic_ns() - begin_ns) / 1e9;
      std::printf("finish_and_take_%zu_per_s_%zu=%.0f\n", each, jobs_,
                  static_cast<double>((turns + 64) * each) / seconds);
      held_.clear();
    }
  }

 private:
  double number_of(const std::string& section, std::string_view name) const {
    const std::string info = server_.ask("INFO " + section).value_or("");
    const size_t at = info.find(name);
    return at == std::string::npos ? 0 : std::strtod(info.c_str() + at + name.size(), nullptr);
  }
  template <typename Does>
  void timed(const std::string& name, Does&& does) {
    server_.ask("CONFIG RESETSTAT");
    does();
    const std::string info = server_.ask("INFO commandstats").value_or("");
    const size_t at = info.find("cmdstat_evalsha:");
    const auto value = [&](std::string_view field) {
      return std::strtod(info.c_str() + info.find(field, at) + field.size(), nullptr);
    };
    spent_[name].push_back(value("usec=") / value("calls="));
  }

  // Asks so many times, with no more pending than Redis would be sent at once.
  template <typename Asks>
  void ask(size_t times, Asks&& asks) {
    for (size_t i = 0; i < times; ++i) {
      if (!client_.until([&] { return pending_ < kPending; }) || !asks()) {
        std::fprintf(stderr, "no Redis: %s\n", client_.lost().c_str());
        std::exit(1);
      }
      ++pending_;
    }
    client_.until([&] { return pending_ == 0; });
  }
  template <typename T>
  void answered(const SharedOrder::Answer<T>& answer) {
    --pending_;
    if (!answer) {
      std::fprintf(stderr, "refused: %s\n", std::string(answer.why).c_str());
      std::exit(1);
    }
  }

  static std::string id_of(uint64_t number) {
    char id[31];
    std::snprintf(id, sizeof id, "job_%026llu", static_cast<unsigned long long>(number));
    return id;
  }
  void add(size_t jobs) {
    ask(jobs, [&] {
      return order_.add({.id = id_of(++ids_),
                         .lane = kLanes[random_() % kLanes.size()],
                         .owner = (1 + random_() % kOwners) * 0x9e3779b97f4a7c15,
                         .priority = random_() % 4 == 0 ? 10 : 0,
                         .cost = 1 + random_() % 2000,
                         .weight = random_() % 2 == 0 ? uint64_t{1} : uint64_t{4},
                         .home = kHost,
                         .body = body_},
                        [&](const auto& answer) { answered(answer); });
    });
  }
  void take(size_t times, size_t most) {
    ask(times, [&] {
      return order_.serve(kHost, "m", most, {}, [&](auto& answer) {
        answered(answer);
        for (auto& each : answer.value.taken) {
          held_.push_back(std::move(each));
        }
      });
    });
  }
  void finish() {
    ask(held_.size(), [&] {
      const auto job = std::move(held_.back());
      held_.pop_back();
      const std::vector<SharedOrder::Finished> finished = {{job.id, job.fence, "answer"}};
      return order_.serve(kHost, "m", 0, finished, [&](auto& answer) { answered(answer); });
    });
  }
  void finish_and_take(size_t times) {
    std::vector<SharedOrder::Taken> taken;
    ask(times, [&] {
      const auto job = std::move(held_.back());
      held_.pop_back();
      const std::vector<SharedOrder::Finished> finished = {{job.id, job.fence, "answer"}};
      return order_.serve(kHost, "m", 1, finished, [&](auto& answer) {
        answered(answer);
        for (auto& each : answer.value.taken) {
          taken.push_back(std::move(each));
        }
      });
    });
    held_ = std::move(taken);
  }
  void next(std::vector<SharedOrder::Taken> some, size_t each) {
    std::vector<SharedOrder::Finished> finished;
    for (const auto& job : some) {
      finished.push_back({job.id, job.fence, "answer"});
    }
    ++pending_;
    const size_t most = chain_ > 0 ? each : 0;
    chain_ -= chain_ > 0 ? 1 : 0;
    order_.serve(kHost, "m", most, finished, [this, each](auto& answer) {
      answered(answer);
      if (!answer.value.taken.empty()) {
        next(std::move(answer.value.taken), each);
      }
    });
  }
  void requeue() {
    ask(held_.size(), [&] {
      const auto job = std::move(held_.back());
      held_.pop_back();
      return order_.requeue({.id = job.id, .host = kHost, .fence = job.fence, .result = {}}, 0,
                            [&](const auto& answer) { answered(answer); });
    });
  }
  // Of jobs at random that wait, by far most of them.
  void position(size_t times, size_t each) {
    ask(times, [&] {
      std::vector<std::string> ids;
      for (size_t i = 0; i < each; ++i) {
        ids.push_back(id_of(1 + ids_ - std::min<uint64_t>(ids_, 1 + random_() % jobs_)));
      }
      const std::vector<std::string_view> views(ids.begin(), ids.end());
      return order_.positions(views, [&](const auto& answer) { answered(answer); });
    });
  }
  void advance(size_t times) {
    ask(times, [&] { return order_.advance([&](const auto& answer) { answered(answer); }); });
  }

  const size_t jobs_;
  RedisServer server_;
  OrderClient client_{server_.socket()};
  SharedOrder order_{client_.servers(),
                     {.name = "q",
                      .max_length = UINT32_MAX,
                      .deadline_ns = 600 * kNsPerSec,
                      .aging_ns = 60 * kNsPerSec},
                     60'000};
  std::mt19937_64 random_{7};
  const std::string body_ = std::string(kBody, 'x');
  uint64_t ids_ = 0;
  size_t pending_ = 0;
  size_t chain_ = 0;
  std::vector<SharedOrder::Taken> held_;
  std::map<std::string, std::vector<double>> spent_;  // us a script, of each round
};

}  // namespace
}  // namespace penstock::queue

int main(int argc, char** argv) {
  std::vector<size_t> sizes;
  for (int i = 1; i < argc; ++i) {
    sizes.push_back(std::strtoull(argv[i], nullptr, 10));
  }
  for (const size_t size : sizes.empty() ? std::vector<size_t>{1'000, 1'000'000} : sizes) {
    penstock::queue::Bench bench(size);
    bench.measure();
    bench.rate();
  }
}
