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

inline GcraPolicy policy(uint64_t amount, uint64_t period_ns, uint64_t burst = 0) {
  auto made = make_gcra(amount, period_ns, burst);
  EXPECT_TRUE(made) << made.error().message;
  return made ? *made : GcraPolicy{};
}

inline Hash128 key(uint64_t number) { return siphash13_128(kSecret, &number, sizeof(number)); }

template <class TableT>
TableT make_table(const SharedMemory& memory) {
  return *TableT::create(memory.bytes(), kSecret);
}

// One unit of one limit, charged at now_ns.
template <class TableT>
Outcome charge_one(TableT& table, const GcraPolicy& limit, const Hash128& hash,
                   int64_t now_ns = kNow, uint64_t cost = 1) {
  Charge charge{&limit, hash, cost};
  return charge_all(table, std::span<Charge>(&charge, 1), now_ns);
}

// The state stored for a key; 0 if it has no slot.
template <class TableT>
uint64_t state_of(const TableT& table, const Hash128& hash) {
  Ref ref;
  return table.find(hash, Kind::gcra, ref) ? ref.state : 0;
}

// Units charged to a key at kNow and not given back.
template <class TableT>
uint64_t units_charged(const TableT& table, const GcraPolicy& limit, const Hash128& hash) {
  const uint64_t state = state_of(table, hash);
  const uint64_t now = gcra_ticks(kNow);
  return state > now ? (state - now) / limit.interval : 0;
}

}  // namespace penstock::limit
