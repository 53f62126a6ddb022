#include "shared/limit/snapshot.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "shared/base/fd.h"
#include "tests/unit/limit/limit_fixture.h"

namespace penstock::limit {
namespace {

// A file that is in no folder.
class MemoryFile {
 public:
  explicit MemoryFile(const std::string& content = "") : fd_(memfd_create("snapshot", 0)) {
    EXPECT_EQ(pwrite(fd_.get(), content.data(), content.size(), 0),
              static_cast<ssize_t>(content.size()));
  }
  int fd() const { return fd_.get(); }
  std::string content() const {
    std::string bytes(static_cast<size_t>(lseek(fd_.get(), 0, SEEK_END)), '\0');
    EXPECT_EQ(pread(fd_.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return bytes;
  }

 private:
  Fd fd_;
};

std::string snapshot_of(const Table& table, const Instant& now) {
  const MemoryFile file;
  EXPECT_TRUE(write_snapshot(file.fd(), table, now));
  return file.content();
}

// What is wrong with a file; nothing if it is accepted.
std::string fault_of(const std::string& bytes, Table* into = nullptr) {
  const MemoryFile file(bytes);
  SnapshotReader reader(file.fd());
  auto head = reader.head();
  if (!head) {
    return head.error().message;
  }
  const Status body = reader.body(into);
  return body ? "" : body.error().message;
}

// The table of a snapshot, made `memory` when the clocks show the given times.
Table restored(const std::string& bytes, const SharedMemory& memory, int64_t monotonic_ns,
               int64_t realtime_ns) {
  const MemoryFile file(bytes);
  SnapshotReader reader(file.fd());
  auto head = reader.head();
  EXPECT_TRUE(head);
  auto table = Table::create(memory.bytes(), head->secret,
                             clock_offset_ns(*head, monotonic_ns, realtime_ns));
  EXPECT_EQ(head->slots, table->slots());
  const Status body = reader.body(&*table);
  EXPECT_TRUE(body) << body.error().message;
  return *table;
}

constexpr auto kHourNs = int64_t{3600} * int64_t{kSecond};
constexpr int64_t kBoot2 = 77 * int64_t{kSecond};  // the second boot's monotonic clock

class SnapshotTest : public testing::Test {
 protected:
  static constexpr size_t kSlots = 4096;

  // Charges of every kind, at times from kNow on; the answers, one character each.
  static std::string traffic(Table& table, uint64_t seed, int64_t monotonic_ns,
                             int64_t realtime_ns) {
    static const std::vector<Policy> policies = {
        policy(5, kDay),
        policy(100, kSecond),
        make_policy(*make_fixed_window(3, Span::hour)),
        make_policy(*make_sliding_window(4, Span::minute)),
        make_policy(*make_concurrency(2)),
        *make_sliding_log(4, 60 * int64_t{kSecond}),
    };
    std::mt19937_64 random(seed);
    std::string answers;
    for (unsigned i = 0; i < 6000; ++i) {
      const uint64_t which = random() % policies.size();
      const Hash128 place = key(which << 32 | random() % 400);
      const auto later = static_cast<int64_t>(i * (kSecond / 100));
      Charge charge{&policies[which], place, 1 + random() % 2};
      const Outcome outcome = charge_all(table, std::span<Charge>(&charge, 1),
                                         table.instant(monotonic_ns + later, realtime_ns + later));
      answers += static_cast<char>('0' + static_cast<int>(outcome));
      answers += static_cast<char>('a' + charge.decision.remaining % 26);
    }
    return answers;
  }

  SharedMemory memory_{Table::bytes_for(kSlots)};
  SharedMemory memory2_{Table::bytes_for(kSlots)};
  Table table_ = make_table<Table>(memory_);
};

TEST_F(SnapshotTest, EveryDecisionIsTheSameAfterwards) {
  traffic(table_, 1, kNow, kNow);
  const int64_t stop = kNow + 60 * int64_t{kSecond};
  const std::string bytes = snapshot_of(table_, table_.instant(stop, stop));
  Table second = restored(bytes, memory2_, kBoot2, stop);
  EXPECT_EQ(second.secret(), table_.secret());
  const std::string expected = traffic(table_, 2, stop, stop);
  const std::string answers = traffic(second, 2, kBoot2, stop);
  const auto [here, there] = std::ranges::mismatch(answers, expected);
  EXPECT_EQ(here - answers.begin(), 12'000) << "the first answer that differs";
  EXPECT_NE(expected.find('0' + static_cast<int>(Outcome::refused)), std::string::npos);
}

TEST_F(SnapshotTest, AKeyBehindSlotsThatWentIdleIsFound) {
  // All 32 slots are candidates for every key. Those that came first, and have the best places, go
  // idle and are not in the snapshot.
  const SharedMemory small(Table::bytes_for(32));
  const SharedMemory small2(Table::bytes_for(32));
  auto table = make_table<Table>(small);
  const Policy brief = policy(1, kSecond);
  const Policy lasting = policy(2, kDay);
  for (uint64_t i = 0; i < 32; ++i) {
    ASSERT_EQ(charge_one(table, i < 16 ? brief : lasting, key(i)), Outcome::admitted);
  }
  const int64_t stop = kNow + 2 * int64_t{kSecond};
  Table second = restored(snapshot_of(table, at(stop)), small2, kBoot2, stop);
  for (uint64_t i = 16; i < 32; ++i) {
    EXPECT_EQ(units_charged(second, lasting, key(i)), 1u) << i;
  }
  EXPECT_EQ(second.usage(second.instant(kBoot2, stop)).live, 16u);
}

TEST_F(SnapshotTest, TheTimeThatNginxWasDownCounts) {
  const Policy limit = policy(1, static_cast<uint64_t>(kHourNs));
  ASSERT_EQ(charge_one(table_, limit, key(1)), Outcome::admitted);
  const std::string bytes = snapshot_of(table_, at(kNow));
  const auto after = [&](int64_t down_ns) {
    Table second = restored(bytes, memory2_, kBoot2, kNow + down_ns);
    Charge charge{&limit, key(1), 1};
    return charge_all(second, std::span<Charge>(&charge, 1),
                      second.instant(kBoot2, kNow + down_ns));
  };
  EXPECT_EQ(after(0), Outcome::refused);
  EXPECT_EQ(after(kHourNs - int64_t{kSecond}), Outcome::refused);
  EXPECT_EQ(after(kHourNs), Outcome::admitted);
  EXPECT_EQ(after(-kHourNs), Outcome::refused) << "a clock that was stepped back lets no time pass";
}

TEST_F(SnapshotTest, TheClockGoesOnOverManyRestarts) {
  SnapshotHead head;
  head.taken = at(kNow);
  EXPECT_EQ(kBoot2 + clock_offset_ns(head, kBoot2, kNow + 5), kNow + 5);
  EXPECT_EQ(kBoot2 + clock_offset_ns(head, kBoot2, kNow - 5), kNow);
  head.taken = {(int64_t{1} << 59) - 1, 0};
  EXPECT_LT(kBoot2 + clock_offset_ns(head, kBoot2, INT64_MAX), int64_t{1} << 59);
}

TEST_F(SnapshotTest, SlotsThatCountNothingAreLeftOut) {
  const size_t empty = snapshot_of(table_, at(kNow)).size();
  for (uint64_t i = 0; i < 100; ++i) {
    ASSERT_EQ(charge_one(table_, policy(1, kSecond), key(i)), Outcome::admitted);
  }
  const size_t live = snapshot_of(table_, at(kNow)).size();
  EXPECT_GE(live, empty + 100 * 16);
  EXPECT_LE(snapshot_of(table_, at(kNow + 2 * int64_t{kSecond})).size(), live - 100 * 16);
}

TEST_F(SnapshotTest, ASlotBeingClaimedIsNoCounterYet) {
  Ref ref;
  ASSERT_EQ(table_.claim(key(1), Kind::gcra, at(kNow), ref), Table::ClaimResult::mine);
  Table second = restored(snapshot_of(table_, at(kNow)), memory2_, kBoot2, kNow);
  EXPECT_EQ(second.usage(at(kNow)).empty, second.slots());
  EXPECT_EQ(charge_one(second, policy(1, kDay), key(1)), Outcome::admitted);
}

TEST_F(SnapshotTest, TheDigestTellsWhetherAnythingChanged) {
  const MemoryFile file;
  ASSERT_EQ(charge_one(table_, policy(2, kDay), key(1)), Outcome::admitted);
  const auto written = write_snapshot(file.fd(), table_, at(kNow));
  ASSERT_TRUE(written);
  EXPECT_EQ(snapshot_digest(table_, at(kNow + kHourNs)), *written);
  ASSERT_EQ(charge_one(table_, policy(2, kDay), key(1)), Outcome::admitted);
  const uint64_t charged = snapshot_digest(table_, at(kNow));
  EXPECT_NE(charged, *written);
  EXPECT_NE(snapshot_digest(table_, at(kNow + 2 * int64_t{kDay})), charged) << "it went idle";
}

TEST_F(SnapshotTest, EveryDamagedByteIsFound) {
  const Policy limit = policy(2, kDay);
  for (uint64_t i = 0; i < 40; ++i) {
    ASSERT_EQ(charge_one(table_, limit, key(i)), Outcome::admitted);
  }
  const std::string good = snapshot_of(table_, at(kNow));
  ASSERT_EQ(fault_of(good), "");
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int flip : {1, 0x80, 0xff}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ flip);
      EXPECT_NE(fault_of(bad), "") << "byte " << i;
    }
  }
}

TEST_F(SnapshotTest, AFileThatEndsEarlyOrLateIsFound) {
  ASSERT_EQ(charge_one(table_, policy(2, kDay), key(1)), Outcome::admitted);
  const std::string good = snapshot_of(table_, at(kNow));
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(fault_of(good.substr(0, size)), "") << size;
  }
  EXPECT_EQ(fault_of(good + '\0'), "something follows its last frame");
}

TEST_F(SnapshotTest, FramesLostRepeatedOrOfAnotherTableAreFound) {
  const SharedMemory memory(Table::bytes_for(100'000));
  auto table = make_table<Table>(memory);
  for (uint64_t i = 0; i < 20'000; ++i) {
    ASSERT_EQ(charge_one(table, policy(2, kDay), key(i)), Outcome::admitted);
  }
  const std::string good = snapshot_of(table, at(kNow));
  std::vector<std::string> frames;
  for (size_t at = 0; at < good.size();) {
    uint32_t size;
    std::memcpy(&size, good.data() + at, 4);
    frames.push_back(good.substr(at, 16 + size));
    at += 16 + size;
  }
  ASSERT_GT(frames.size(), 4u);
  const auto joined = [&](const std::vector<size_t>& order) {
    std::string bytes;
    for (const size_t i : order) {
      bytes += frames[i];
    }
    for (size_t i = 4; i < frames.size(); ++i) {
      bytes += frames[i];
    }
    return bytes;
  };
  EXPECT_EQ(fault_of(joined({0, 1, 2, 3})), "");
  EXPECT_NE(fault_of(joined({0, 1, 3})), "");
  EXPECT_NE(fault_of(joined({0, 1, 1, 2, 3})), "");
  EXPECT_NE(fault_of(joined({0, 2, 1, 3})), "");
  EXPECT_NE(fault_of(joined({1, 2, 3})), "");
  frames[0] = snapshot_of(*Table::create(memory.bytes(), Secret{1, 2}), at(kNow)).substr(0, 232);
  EXPECT_NE(fault_of(joined({0, 1, 2, 3})), "");
}

TEST_F(SnapshotTest, AFullDiskIsAnErrorThatSaysSo) {
  const Fd full(open("/dev/full", O_WRONLY));
  const auto written = write_snapshot(full.get(), table_, at(kNow));
  ASSERT_FALSE(written);
  EXPECT_NE(written.error().message.find("No space left"), std::string::npos);
}

// ---- files that are whole and wrong ----

std::string number(uint64_t value, size_t bytes) {
  return {reinterpret_cast<const char*>(&value), bytes};
}

// Frames with right checksums around any payload.
class Forger {
 public:
  Forger& head(uint64_t version, uint64_t slots, int64_t steady_ns, int64_t wall_ns = kNow) {
    frame("PstkSnap" + number(version, 8) + number(slots, 8) + number(kSecret.k0, 8) +
              number(kSecret.k1, 8) + number(static_cast<uint64_t>(steady_ns), 8) +
              number(static_cast<uint64_t>(wall_ns), 8) + std::string(160, '\0'),
          false);
    chain_ = SipState<2, 4>(Secret{0, kKey}).hash64(&kSecret, sizeof kSecret);
    return *this;
  }
  Forger& frame(const std::string& payload, bool last) {
    const std::string checked = number(payload.size(), 4) + number(last ? 1 : 0, 4) + payload;
    chain_ = SipState<2, 4>(Secret{chain_, kKey}).hash64(checked.data(), checked.size());
    bytes_ += checked + number(chain_, 8);
    return *this;
  }
  std::string fault(const std::string& payload) { return fault_of(frame(payload, true).bytes_); }
  std::string fault() const { return fault_of(bytes_); }

 private:
  static constexpr uint64_t kKey = 0x656c626174206b73;
  std::string bytes_;
  uint64_t chain_ = 0;
};

std::string record(uint32_t group, unsigned used, unsigned live, const std::string& slots = "") {
  return number(group, 4) + number(used, 2) + number(live, 2) + slots;
}

std::string slot_of(Kind kind, uint64_t state) {
  return number(0x1230 | static_cast<uint64_t>(kind), 8) + number(state, 8);
}

TEST(ForgedSnapshotTest, WhatIsImpossibleIsNamed) {
  const std::string live = slot_of(Kind::gcra, gcra_ticks(kNow + 1));
  const auto fault = [](const std::string& payload) {
    return Forger().head(2, 32, kNow).fault(payload);
  };
  EXPECT_EQ(fault(""), "");
  EXPECT_EQ(fault(record(0, 3, 1, live) + record(1, 0x8000, 0)), "");
  EXPECT_EQ(fault(record(2, 1, 0)), "a slot's number is out of order or out of range");
  EXPECT_EQ(fault(record(1, 1, 0) + record(0, 1, 0)),
            "a slot's number is out of order or out of range");
  EXPECT_EQ(fault(record(1, 1, 0) + record(1, 1, 0)),
            "a slot's number is out of order or out of range");
  EXPECT_EQ(fault(record(0, 0, 0)), "a group's slots are impossible");
  EXPECT_EQ(fault(record(0, 1, 2, live)), "a group's slots are impossible");
  EXPECT_EQ(fault(record(0, 1, 1, slot_of(Kind::gcra, gcra_ticks(kNow)))),
            "a slot's state is impossible")
      << "idle";
  for (const int kind : {0, 5, 6, 7}) {
    EXPECT_EQ(fault(record(0, 1, 1, slot_of(static_cast<Kind>(kind), ~uint64_t{0}))),
              "a slot's state is impossible");
  }
  EXPECT_EQ(fault(record(0, 1, 1, live.substr(1))), "a record is cut off");
  EXPECT_EQ(fault(record(0, 1, 0) + "1234567"), "a record is cut off");
}

TEST(ForgedSnapshotTest, AHeadThatIsImpossibleIsNamed) {
  EXPECT_EQ(Forger().head(1, 32, kNow).fault(""), "it is of version 1, this program knows 2");
  EXPECT_EQ(Forger().head(2, 32, -1).fault(""), "its times are impossible");
  EXPECT_EQ(Forger().head(2, 32, int64_t{1} << 59).fault(""), "its times are impossible");
  EXPECT_EQ(Forger().head(2, 32, kNow, INT64_MAX).fault(""), "its times are impossible");
  EXPECT_EQ(Forger().head(2, 32, kNow, -1).fault(""), "its times are impossible");
  EXPECT_EQ(Forger().frame("something else, but whole", false).fault(),
            "it is no snapshot of counters");
  EXPECT_EQ(Forger().head(2, 32, kNow).frame("", false).fault(""), "a frame is empty");
  EXPECT_EQ(fault_of(""), "it ends before its last frame");
  EXPECT_EQ(fault_of(std::string(80, '\xff')), "a frame's size is impossible");
}

}  // namespace
}  // namespace penstock::limit
