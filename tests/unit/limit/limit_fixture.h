// The vocabulary of the limiter's tests: shared memory, a table in it, keys by number.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "shared/limit/charge.h"

namespace penstock::limit {

#if defined(__SANITIZE_THREAD__)
constexpr bool kTsan = true;
#else
constexpr bool kTsan = false;
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kScale = 10;  // sanitized runs do a tenth of the work
#else
constexpr uint64_t kScale = 1;
#endif

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kDay = 86'400 * kSecond;
constexpr int64_t kNow = 1'000'000 * int64_t{1'000'000'000};
constexpr Secret kSecret{0x0706050403020100, 0x0f0e0d0c0b0a0908};

// Zeroed memory that forked children share.
class SharedMemory {
 public:
  explicit SharedMemory(size_t size)
      : size_(size),
        at_(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    EXPECT_NE(at_, MAP_FAILED);
  }
  ~SharedMemory() { munmap(at_, size_); }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(at_), size_}; }

 private:
  size_t size_;
  void* at_;
};

inline GcraPolicy gcra(uint64_t amount, uint64_t period_ns, uint64_t burst = 0) {
  auto made = make_gcra(amount, period_ns, burst);
  EXPECT_TRUE(made) << made.error().message;
  return made ? *made : GcraPolicy{};
}

inline Policy policy(uint64_t amount, uint64_t period_ns, uint64_t burst = 0) {
  return make_policy(gcra(amount, period_ns, burst));
}

inline Policy window(const Result<WindowPolicy>& made) {
  EXPECT_TRUE(made) << made.error().message;
  return made ? make_policy(*made) : Policy{};
}

inline Policy fixed_window(uint64_t limit, Span span) {
  return window(make_fixed_window(limit, span));
}
inline Policy sliding_window(uint64_t limit, Span span) {
  return window(make_sliding_window(limit, span));
}
inline Policy concurrency(uint64_t limit) { return window(make_concurrency(limit)); }

inline Policy sliding_log(uint64_t limit, int64_t length_ns) {
  const auto made = make_sliding_log(limit, length_ns);
  EXPECT_TRUE(made) << made.error().message;
  return made ? *made : Policy{};
}

// A moment of the tests: both clocks say the same.
constexpr Instant at(int64_t now_ns) { return {now_ns, now_ns}; }

inline Hash128 key(uint64_t number) { return siphash13_128(kSecret, &number, sizeof(number)); }

template <class TableT>
TableT make_table(const SharedMemory& memory) {
  return *TableT::create(memory.bytes(), kSecret);
}

// One unit of one limit, charged at now_ns.
template <class TableT>
Outcome charge_one(TableT& table, const Policy& limit, const Hash128& hash, int64_t now_ns = kNow,
                   uint64_t cost = 1) {
  Charge charge{&limit, hash, cost};
  return charge_all(table, std::span<Charge>(&charge, 1), at(now_ns));
}

// What a charge of `cost` would be told.
template <class TableT>
Decision peek_one(const TableT& table, const Policy& limit, const Hash128& hash, int64_t now_ns,
                  uint64_t cost) {
  Charge charge{&limit, hash, cost};
  peek_all(table, std::span<Charge>(&charge, 1), at(now_ns));
  return charge.decision;
}

// Units of a limit that are used: what is lacking to all of it. Debt doesn't show.
template <class TableT>
uint64_t units_used(const TableT& table, const Policy& limit, const Hash128& hash,
                    int64_t now_ns = kNow) {
  return limit.limit - peek_one(table, limit, hash, now_ns, 0).remaining;
}

// The state stored for a key; 0 if it has no slot.
template <class TableT>
uint64_t state_of(const TableT& table, const Hash128& hash) {
  Ref ref;
  return table.find(hash, Kind::gcra, ref) ? ref.state : 0;
}

// Units charged to a key at kNow and not given back.
template <class TableT>
uint64_t units_charged(const TableT& table, const Policy& limit, const Hash128& hash) {
  const uint64_t state = state_of(table, hash);
  const uint64_t now = gcra_ticks(kNow);
  return state > now ? (state - now) / limit.gcra.interval : 0;
}

}  // namespace penstock::limit
