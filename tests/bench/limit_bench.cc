// BENCH.md E5 and E6: one decision in memory and the bytes of a counter, beside Nginx's limit_req.
//
//   limit_bench [KEYS]                  10,000,000 keys unless told
//   limit_bench --decide ALGORITHM N    N decisions only: what valgrind --tool=callgrind counts
//
// The peer does what limit_req does for a request, after its documentation and published
// behaviour: takes the zone's mutex (spinning, then sleeping on a semaphore in shared memory),
// finds the key in a red-black tree ordered by its CRC-32, moves it to the front of the queue by
// last use, and updates the excess. Both hash the key (8 bytes) and are given the time. Runs
// alternate A B A B; the figures are medians. Lines are `name=value` for the bench's table.

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <span>
#include <thread>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/large_pages.h"
#include "shared/limit/charge.h"

namespace penstock::limit {
namespace {

constexpr int kRuns = 5;
constexpr Secret kSecret{0x0123456789abcdef, 0xfedcba9876543210};

std::span<std::byte> map_memory(size_t size) {
  const std::span<std::byte> memory = map_shared(size, -1);
  if (memory.empty()) {
    std::perror("limit_bench: mmap");
    std::exit(1);
  }
  use_large_pages(memory);
  return memory;
}

uint64_t mix(uint64_t x) {  // splitmix64: the keys, and the order in which they come
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// ---- The peer -----------------------------------------------------------------------------------

struct Node {
  uint64_t order;  // CRC-32 of the key
  Node* left;
  Node* right;
  Node* parent;
  uint8_t red;
  uint16_t length;
  Node* newer;
  Node* older;
  int64_t last_ms;
  int64_t excess;
  uint64_t count;
  unsigned char key[8];
};

// What a node takes in the zone: the slab allocator serves powers of two.
constexpr size_t kNodeBytes = std::bit_ceil(sizeof(Node));
static_assert(sizeof(Node) <= 128);

class Crc32 {
 public:
  constexpr Crc32() {
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit) {
        c = (c & 1) != 0 ? 0xedb88320 ^ (c >> 1) : c >> 1;
      }
      table_[i] = c;
    }
  }
  uint32_t of(const unsigned char* at, size_t size) const {
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size; ++i) {
      crc = table_[(crc ^ at[i]) & 0xff] ^ (crc >> 8);
    }
    return ~crc;
  }

 private:
  std::array<uint32_t, 256> table_{};
};
constexpr Crc32 kCrc;

// Spins with growing pauses, then sleeps until the holder posts.
class SpinThenSleep {
 public:
  SpinThenSleep() { sem_init(&sleepers_, 1, 0); }

  void lock() {
    for (;;) {
      if (try_lock()) {
        return;
      }
      for (int pauses = 1; pauses < 2048; pauses <<= 1) {
        for (int i = 0; i < pauses; ++i) {
          __builtin_ia32_pause();
        }
        if (try_lock()) {
          return;
        }
      }
      waiting_.fetch_add(1);
      if (try_lock()) {
        waiting_.fetch_sub(1);
        return;
      }
      while (sem_wait(&sleepers_) != 0) {
      }
    }
  }
  void unlock() {
    held_.store(0);
    int waiting = waiting_.load();
    while (waiting > 0) {
      if (waiting_.compare_exchange_weak(waiting, waiting - 1)) {
        sem_post(&sleepers_);
        return;
      }
    }
  }

 private:
  bool try_lock() {
    int free = 0;
    return held_.load(std::memory_order_relaxed) == 0 && held_.compare_exchange_strong(free, 1);
  }
  std::atomic<int> held_ = 0;
  std::atomic<int> waiting_ = 0;
  sem_t sleepers_;
};

class LimitReq {
 public:
  LimitReq(size_t nodes, int64_t rate_per_1000s, int64_t burst)
      : memory_(map_memory((nodes + 1) * kNodeBytes)), rate_(rate_per_1000s), burst_(burst) {
    nil_ = allocate();
    nil_->red = 0;
    nil_->newer = nil_->older = nil_;
    root_ = nil_;
  }
  ~LimitReq() { munmap(memory_.data(), memory_.size()); }
  LimitReq(const LimitReq&) = delete;
  LimitReq& operator=(const LimitReq&) = delete;

  bool admit(const unsigned char* key, uint16_t length, int64_t now_ms) {
    const uint32_t order = kCrc.of(key, length);
    mutex_.lock();
    Node* node = find(order, key, length);
    if (node == nil_) {
      node = insert(order, key, length);
      node->last_ms = now_ms;
      mutex_.unlock();
      return true;
    }
    to_front(node);
    const int64_t elapsed = std::max<int64_t>(0, now_ms - node->last_ms);
    const int64_t excess = std::max<int64_t>(0, node->excess - rate_ * elapsed / 1000 + 1000);
    const bool fits = excess <= burst_;
    if (fits) {
      node->excess = excess;
      node->last_ms = now_ms;
    }
    mutex_.unlock();
    return fits;
  }

 private:
  Node* allocate() { return new (memory_.data() + kNodeBytes * used_++) Node{}; }

  static int compare(const Node* node, uint64_t order, const unsigned char* key, uint16_t length) {
    if (order != node->order) {
      return order < node->order ? -1 : 1;
    }
    const int bytes = std::memcmp(key, node->key, std::min(length, node->length));
    return bytes != 0 ? bytes : length - node->length;
  }

  Node* find(uint64_t order, const unsigned char* key, uint16_t length) const {
    Node* at = root_;
    while (at != nil_) {
      const int way = compare(at, order, key, length);
      if (way == 0) {
        break;
      }
      at = way < 0 ? at->left : at->right;
    }
    return at;
  }

  void to_front(Node* node) {
    node->newer->older = node->older;
    node->older->newer = node->newer;
    push_front(node);
  }
  void push_front(Node* node) {
    node->newer = nil_;
    node->older = nil_->older;
    nil_->older->newer = node;
    nil_->older = node;
  }

  Node* insert(uint64_t order, const unsigned char* key, uint16_t length) {
    Node* node = allocate();
    node->order = order;
    node->length = length;
    std::memcpy(node->key, key, length);
    node->left = node->right = node->parent = nil_;
    node->red = 1;
    Node* parent = nil_;
    Node** link = &root_;
    while (*link != nil_) {
      parent = *link;
      link = compare(parent, order, key, length) < 0 ? &parent->left : &parent->right;
    }
    *link = node;
    node->parent = parent;
    rebalance(node);
    push_front(node);
    return node;
  }

  // The textbook's repair after an insertion (Cormen et al., Introduction to Algorithms, ch. 13).
  void rebalance(Node* node) {
    while (node->parent->red != 0) {
      Node* parent = node->parent;
      Node* grand = parent->parent;
      const bool left = parent == grand->left;
      Node* uncle = left ? grand->right : grand->left;
      if (uncle->red != 0) {
        parent->red = uncle->red = 0;
        grand->red = 1;
        node = grand;
        continue;
      }
      if (node == (left ? parent->right : parent->left)) {
        rotate(parent, left);
        std::swap(node, parent);
      }
      parent->red = 0;
      grand->red = 1;
      rotate(grand, !left);
    }
    root_->red = 0;
  }

  void rotate(Node* down, bool to_left) {
    Node* up = to_left ? down->right : down->left;
    Node*& from = to_left ? up->left : up->right;
    (to_left ? down->right : down->left) = from;
    if (from != nil_) {
      from->parent = down;
    }
    up->parent = down->parent;
    if (down == root_) {
      root_ = up;
    } else if (down == down->parent->left) {
      down->parent->left = up;
    } else {
      down->parent->right = up;
    }
    from = down;
    down->parent = up;
  }

  std::span<std::byte> memory_;
  int64_t rate_;
  int64_t burst_;
  size_t used_ = 0;
  Node* nil_ = nullptr;  // also the queue's head: older is the newest, newer the oldest
  Node* root_ = nullptr;
  SpinThenSleep mutex_;
};

// ---- Measuring ----------------------------------------------------------------------------------

int64_t thread_cpu_ns() {
  timespec ts;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
  return ts.tv_sec * kNsPerSec + ts.tv_nsec;
}

// ns for each decision that a thread makes, `each` of them on every pinned thread. For one thread
// that is its CPU time, which other programs on the machine disturb less; for several it is wall
// clock, because waiting for a lock is part of what is measured.
double measure(unsigned threads, uint64_t each,
               const std::function<void(unsigned thread, uint64_t count)>& work) {
  std::barrier gate(static_cast<std::ptrdiff_t>(threads) + 1);
  std::vector<std::thread> running;
  int64_t cpu_ns = 0;
  for (unsigned i = 0; i < threads; ++i) {
    running.emplace_back([&, i] {
      cpu_set_t cpus;
      CPU_ZERO(&cpus);
      CPU_SET(i % std::thread::hardware_concurrency(), &cpus);
      pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);
      gate.arrive_and_wait();
      const int64_t cpu_start = thread_cpu_ns();
      work(i, each);
      const int64_t cpu_end = thread_cpu_ns();
      gate.arrive_and_wait();
      if (i == 0) {
        cpu_ns = cpu_end - cpu_start;
      }
    });
  }
  gate.arrive_and_wait();
  const int64_t start = monotonic_ns();
  gate.arrive_and_wait();
  const int64_t end = monotonic_ns();
  for (std::thread& thread : running) {
    thread.join();
  }
  return static_cast<double>(threads == 1 ? cpu_ns : end - start) / static_cast<double>(each);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::atomic<uint64_t> sink;  // keeps the answers from being optimized away

struct Bench {
  uint64_t keys;
  Table table;
  Policy limit;
  LimitReq peer;
  Instant now;

  bool ours(uint64_t key) {
    Charge charge{&limit, siphash13_128(kSecret, &key, sizeof(key)), 1};
    table.prefetch(charge.hash);
    return charge_all(table, std::span<Charge>(&charge, 1), now) == Outcome::admitted;
  }
  bool theirs(uint64_t key) {
    unsigned char bytes[8];
    std::memcpy(bytes, &key, 8);
    return peer.admit(bytes, 8, now.steady_ns / kNsPerMs);
  }

  // key_of(thread, i) is the key of a thread's i-th request.
  template <class KeyOf>
  void row(const char* name, unsigned threads, uint64_t each, KeyOf key_of) {
    std::vector<double> a;
    std::vector<double> b;
    const auto run = [&](auto decide_one) {
      return measure(threads, each, [&](unsigned thread, uint64_t count) {
        uint64_t admitted = 0;
        for (uint64_t i = 0; i < count; ++i) {
          admitted += decide_one(key_of(thread, i)) ? 1 : 0;
        }
        sink += admitted;
      });
    };
    for (int i = 0; i < kRuns; ++i) {
      a.push_back(run([this](uint64_t key) { return ours(key); }));
      b.push_back(run([this](uint64_t key) { return theirs(key); }));
    }
    const double ours_ns = median(a);
    const double peer_ns = median(b);
    std::printf("E5 %s threads=%u ours_ns=%.1f peer_ns=%.1f ratio=%.3f\n", name, threads, ours_ns,
                peer_ns, ours_ns / peer_ns);
    std::fflush(stdout);
  }
};

// What the machine takes for one read of a random line of that much memory, which no decision on
// many keys can do without.
void one_access(uint64_t bytes) {
  const auto memory = map_memory(bytes);
  auto* words = reinterpret_cast<uint64_t*>(memory.data());
  for (uint64_t i = 0; i < bytes / 8; i += 8) {
    words[i] = i;
  }
  std::vector<double> runs;
  runs.reserve(kRuns);
  for (int run = 0; run < kRuns; ++run) {
    runs.push_back(measure(1, 500'000, [&](unsigned, uint64_t count) {
      uint64_t at = static_cast<uint64_t>(run);
      for (uint64_t i = 0; i < count; ++i) {
        at += words[mix(at + i) % (bytes / 64) * 8];  // the next address depends on what was read
      }
      sink += at;
    }));
  }
  std::printf("MEM bytes=%lu threads=1 ours_ns=%.1f\n", bytes, median(runs));
  munmap(memory.data(), memory.size());
}

void six_rules(Bench& bench) {
  std::vector<double> runs(kRuns);
  for (double& run : runs) {
    run = measure(1, 1'000'000, [&](unsigned, uint64_t count) {
      uint64_t admitted = 0;
      for (uint64_t i = 0; i < count; ++i) {
        Charge charges[6];
        for (uint64_t rule = 0; rule < 6; ++rule) {
          const uint64_t key = mix(rule * 1000 + (rule < 4 ? i % 100 : 0));
          charges[rule] = {&bench.limit, siphash13_128(kSecret, &key, sizeof(key)), 1};
          bench.table.prefetch(charges[rule].hash);
        }
        admitted += charge_all(bench.table, std::span(charges), bench.now) == Outcome::admitted;
      }
      sink += admitted;
    });
  }
  std::printf("E2 six_rules threads=1 ours_ns=%.1f\n", median(runs));
}

// One decision that admits by each algorithm, over 1000 keys in turn; every thousand decisions the
// clock goes on by a second, so that a log's entries have ended.
struct Case {
  const char* name;
  Policy policy;

  uint64_t decide(Table& table, const Instant& start, uint64_t count) const {
    uint64_t admitted = 0;
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t key = mix(i % 1000);
      const auto seconds = static_cast<int64_t>(i / 1000);
      const Instant now{start.steady_ns + seconds * kNsPerSec, start.wall_ns};
      Charge charge{&policy, siphash13_128(kSecret, &key, sizeof(key)), 1};
      table.prefetch(charge.hash);
      admitted += charge_all(table, std::span(&charge, 1), now) == Outcome::admitted ? 1 : 0;
      if (policy.algorithm == Algorithm::concurrency) {  // taken and given back
        refund_one(table, policy, charge.hash, 1, charge.decision.next_state, now);
      }
    }
    return admitted;
  }
};

std::vector<Case> cases() {
  return {
      {"token_bucket", make_policy(*make_gcra(1'000'000, 86'400ull * kNsPerSec, kMaxBurst))},
      {"fixed_window_day", make_policy(*make_fixed_window(1'000'000'000, Span::day))},
      {"fixed_window_month", make_policy(*make_fixed_window(1'000'000'000, Span::month))},
      {"sliding_window", make_policy(*make_sliding_window(60'000'000, Span::day))},
      {"concurrency", make_policy(*make_concurrency(1'000'000))},
      {"sliding_log_10", *make_sliding_log(10, kNsPerSec)},
      {"sliding_log_100", *make_sliding_log(100, kNsPerSec)},
  };
}

// A quarter full, as a zone that was sized well is.
Table small_table() { return *Table::create(map_memory(Table::bytes_for(8000)), kSecret); }

void algorithms(const Instant& now) {
  for (const Case& item : cases()) {
    Table table = small_table();
    std::vector<double> runs;
    for (int run = 0; run < kRuns; ++run) {
      const Instant start{now.steady_ns + run * 1000 * kNsPerSec, now.wall_ns};
      runs.push_back(measure(
          1, 200'000, [&](unsigned, uint64_t count) { sink += item.decide(table, start, count); }));
    }
    std::printf("ALG %s threads=1 ours_ns=%.1f\n", item.name, median(runs));
  }
}

// For counting instructions: `count` decisions and nothing else worth mentioning.
int decide_only(const char* name, uint64_t count) {
  for (const Case& item : cases()) {
    if (std::strcmp(item.name, name) == 0) {
      Table table = small_table();
      std::printf("%lu\n", item.decide(table, {monotonic_ns(), realtime_ns()}, count));
      return 0;
    }
  }
  std::fprintf(stderr, "limit_bench: no algorithm is called %s\n", name);
  return 2;
}

int run(uint64_t keys) {
  const size_t table_bytes = keys * 32 / sizeof(TableHeader) * sizeof(TableHeader);
  auto table = Table::create(map_memory(table_bytes), kSecret);
  auto limit = make_gcra(1'000'000, 86'400ull * kNsPerSec, kMaxBurst);
  if (!table || !limit) {
    std::fprintf(stderr, "limit_bench: %s\n",
                 (!table ? table.error() : limit.error()).message.c_str());
    return 1;
  }
  Bench bench{keys,
              *table,
              make_policy(*limit),
              LimitReq(keys + 1, 1'000'000, 1'000'000'000'000),
              {monotonic_ns(), realtime_ns()}};
  // Every key is live in both from here on: each has been used once.
  uint64_t refused = 0;
  for (uint64_t i = 0; i < keys; ++i) {
    refused += bench.ours(mix(i)) ? 0 : 1;
    bench.theirs(mix(i));
  }
  std::printf("E6 keys=%lu live=%lu no_slot=%lu ours_bytes=%.1f peer_bytes=%zu ratio=%.3f\n", keys,
              bench.table.usage(bench.now).live, bench.table.full_events(),
              static_cast<double>(table_bytes) / static_cast<double>(keys), kNodeBytes,
              static_cast<double>(table_bytes) / static_cast<double>(keys) / kNodeBytes);
  if (refused != 0 || bench.table.full_events() != 0) {
    std::fprintf(stderr, "limit_bench: %lu of %lu keys were not taken\n", refused, keys);
    return 1;
  }
  const auto hot = [](unsigned, uint64_t) { return mix(0); };
  const auto any = [keys](unsigned thread, uint64_t i) {
    return mix(mix(i + thread * 7'777'777'777) % keys);
  };
  for (const unsigned threads : {1u, 2u}) {
    bench.row("hot", threads, 2'000'000, hot);
    bench.row("many", threads, 500'000, any);
  }
  one_access(table_bytes);
  six_rules(bench);
  algorithms(bench.now);
  return 0;
}

}  // namespace
}  // namespace penstock::limit

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "--decide") == 0) {
    return penstock::limit::decide_only(argv[2], std::strtoull(argv[3], nullptr, 10));
  }
  const uint64_t keys = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 10'000'000;
  if (keys < 10'000) {
    std::fprintf(stderr, "usage: limit_bench [KEYS, at least 10000] | --decide ALGORITHM N\n");
    return 2;
  }
  return penstock::limit::run(keys);
}
