// The counter table: every limit's state for every key, in memory shared by all Nginx workers.
//
// It is a fixed number of 16-byte slots in memory it is given, without locks and without pointers,
// so that any process may map it anywhere, and be killed at any instruction, without harm.
//
//   slot   = | key, 8 bytes | state, 8 bytes |                               changed as one, by CAS
//   key    = | 45 bits of the key's hash | generation, 10 | size, 6 | kind, 3 |
//   line   = 4 slots, one cache line
//   group  = 4 lines
//   table  = header, a page | group | group | ...
//
// A key's hash names two groups and a home line in each. Its slot is in one of the two home lines,
// or, where those were full, in the next pair of lines of the same two groups (4 pairs, 32 slots).
// A new key goes to the first line of the pair while that has two slots free, else to the emptier
// of the two. This is two-choice hashing (Azar, Broder, Karlin, Upfal, "Balanced Allocations",
// 1994) that leans to one side, so that a key is most often in the line that is looked at first;
// nothing is ever moved. At half load, that is 32 bytes a key, 90 keys in 100 are in their first
// line (98 at a quarter), all but 3 in 10,000 in one of the home lines, and the first key that
// finds no slot comes at a load of about two thirds.
//
// A slot becomes free for another key by itself, when its state is idle: every kind of state can
// tell that from the time alone. A flood of random keys takes nobody's place:
//
//  - Where no slot is free, one that is nearly unused is given up: of all that the key may have,
//    the one that has used the smallest part of its limit, and no more than a sixteenth (kUnused).
//    So each time that this happens to a key it gets back what it had used, at most a sixteenth of
//    its bucket or window. A limit below 16, a lease and a log's unit are never given up.
//  - One slot in 8 (the last of every other line) is not for calendar and sliding windows, which
//    last for up to a month: buckets and leases, which come free within seconds, find it.
//
// If there is none of these either the answer is Full: what is well used is never forgotten, so no
// flood can reset anyone's counter.
//
// What holds under any interleaving, and after a SIGKILL anywhere:
//
//  (1) A slot changes only by a 16-byte CAS from exactly the key and state that were read. So no
//      charge can land on a slot that has meanwhile been given to another key.
//  (2) A slot is never empty again after it was used. A key is put into pair p+1 only where pair p
//      has no empty slot. So a search may end after the first pair that has one.
//  (3) At most one slot is live for a key. Claiming a slot has two steps: the slot is first marked
//      `pending` for the key, with a number never used before; then all the places of the key are
//      read again: another slot pending for it is vacated, and if one is live the claim is given
//      up; only then is the slot made live, by a CAS from that very pending mark. Proof. Let A and
//      B both make a slot live for the key, A marking its slot pending first, and neither leaving
//      it in between. B reads A's slot after marking its own. If it finds it live, B gives up. If
//      it finds it pending, B vacates it: either that succeeds, and A's last CAS fails because a
//      mark's number is never used twice, or A was faster, and B reads again and finds it live. It
//      cannot find anything else there. By (2) B does read A's slot: were it in a later pair than
//      B's search goes, the pair where B stopped would have had no empty slot even before A.
//  (4) A key that was given up while idle and comes back starts no earlier than it stopped, even if
//      its next request carries an older clock: the header keeps the latest state ever given up
//      (`floor`), raised before the slot is taken, and read after (3) has shown the key to be
//      absent. Of windows it keeps the time at which one was given up; a request with an older
//      clock is judged by that (not_before).
//  (5) A slot left pending by a dead process is taken by whoever needs it.
//  (6) What a state means hangs on the terms of its limit: the rate, the period. A slot says in
//      which generation of them it was written. A reload that changes the terms of any limit begins
//      the next generation; the header keeps when each of the last ones began, and slots of kind
//      `terms` what each limit said in it. A slot of an earlier generation is found, and carried
//      over by whoever charges it (terms.h). Until then only that is idle which was so when terms
//      last changed, or which would be by the slowest terms there are: `held_since`, `held_until`.
//      A generation comes again after 1024: a slot that nobody has charged meanwhile is misread.
//
// Reads. Key, state and key again are read, each 8 bytes at once. What was read only matters if the
// CAS confirms it, except for a refusal: that could be wrong only if between the first read and the
// last the slot went to another key and back to the first, in which case one request is refused
// that need not have been. Nothing is ever admitted wrongly.
//
// Weak memory (arm64). Two things must not move. The three reads of a slot: each is an acquire
// load, behind which no later read is done earlier. And in (3) the reads behind a mark: were they
// done before it is seen, A and B could both miss the other's mark. So the CAS is a full barrier: a
// locked instruction on x86-64; on arm64 a fence follows it, as the CAS alone (CASPAL) is ordered
// only before acquire loads of the stronger kind (LDAR, not LDAPR). Both halves of a slot are
// written by one 16-byte instruction, or one exclusive pair, so each 8-byte read finds a value that
// was written. What one process writes before a store with release (the header, a generation) is
// seen by whoever reads that with acquire.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "shared/base/result.h"
#include "shared/limit/table_layout.h"

namespace penstock::limit {

// Where a key is, as found or claimed. commit() turns it into the next state. Without default
// values, so that room for many costs nothing; Ref() is nowhere.
struct Ref {
  Slot* slot;
  uint64_t expect_key;  // what the slot must still hold
  uint64_t expect_state;
  uint64_t key;    // what its key word will be
  uint64_t state;  // what to decide on

  // Word by word: a 16-byte copy of two words just stored would wait for them to reach the cache.
  void set(Slot* at, uint64_t word, uint64_t current) noexcept {
    slot = at;
    expect_key = key = word;
    expect_state = state = current;
  }
};

struct TableUsage {
  uint64_t empty = 0, idle = 0, live = 0, pending = 0;
};

// What one line has to offer a new key: how many free slots, and the best of them.
struct Offer {
  unsigned free = 0;
  unsigned rank = kNone;
  uint64_t used = 0;  // of kUnusedSlot: parts in 2^32 of its size
  Slot* slot = nullptr;
  Slot seen;

  enum : unsigned { kEmpty, kVacated, kIdle, kUnusedSlot, kPending, kNone };

  void take_if_better(unsigned its_rank, uint64_t its_used, Slot* its_slot,
                      const Slot& as_seen) noexcept {
    if (its_rank < rank || (its_rank == rank && its_used < used)) {
      rank = its_rank;
      used = its_used;
      slot = its_slot;
      seen = as_seen;
    }
  }
};

// Points at which a test may let another process's step come in between.
enum class Point { found, before_claim, claimed, checked, before_commit };

struct NoSync {
  static void at(Point) noexcept {}
};

// The view one process has of the table: a few words, copied freely, owns nothing. It is
// usable from any thread and after fork(). All but create and attach are noexcept, allocate nothing
// and make no system call.
template <class Sync>
class BasicTable {
 public:
  using SyncPoints = Sync;

  enum class ClaimResult { mine, exists, full };

  // Bytes that hold at least `slots` slots. Half as many keys may be live at once.
  static constexpr size_t bytes_for(size_t slots) noexcept {
    const size_t groups = (slots + kSlotsPerGroup - 1) / kSlotsPerGroup;
    return sizeof(TableHeader) + (groups < 2 ? 2 : groups) * sizeof(Group);
  }

  // Makes an empty table of all of `memory`, which is overwritten. An Error if it is too small (two
  // groups are the least), larger than 2^32 groups (1 TiB) or not aligned to a page. Its steady
  // clock is CLOCK_MONOTONIC plus `clock_offset_ns`: what it takes to go on where an earlier table
  // stopped.
  // REQUIRES: nobody else uses the memory; it outlives every view.
  static Result<BasicTable> create(std::span<std::byte> memory, const Secret& secret,
                                   int64_t clock_offset_ns = 0);

  // The table that is already there. An Error says why it isn't one that this version can use.
  static Result<BasicTable> attach(std::span<std::byte> memory);

  const Secret& secret() const noexcept { return header_->secret; }

  // The moment of two readings, on the table's clocks.
  Instant instant(int64_t monotonic_ns, int64_t realtime_ns) const noexcept {
    return {monotonic_ns + header_->clock_offset_ns, realtime_ns};
  }
  // The reading that a moment was made of.
  int64_t monotonic_ns(const Instant& now) const noexcept {
    return now.steady_ns - header_->clock_offset_ns;
  }
  // `now`, or the time at which a window was given up if that is later: see (4).
  Instant not_before(const Instant& now) const noexcept {
    const auto floor =
        static_cast<int64_t>(__atomic_load_n(&header_->given_up_ns, __ATOMIC_ACQUIRE));
    const int64_t late = floor > now.steady_ns ? floor - now.steady_ns : 0;
    return {now.steady_ns + late, now.wall_ns + late};
  }
  uint64_t slots() const noexcept { return groups_ * kSlotsPerGroup; }
  uint64_t full_events() const noexcept {
    return __atomic_load_n(&header_->full, __ATOMIC_RELAXED);
  }

  uint64_t evictions() const noexcept {
    return __atomic_load_n(&header_->evicted, __ATOMIC_RELAXED);
  }

  // Live keys that were given up for others, being nearly unused.
  uint64_t given_away() const noexcept {
    return __atomic_load_n(&header_->given_away, __ATOMIC_RELAXED);
  }

  // ---- generations of terms (terms.h)

  // Whether others have begun a generation since this view was made. Then its own process is one of
  // an earlier configuration.
  bool is_stale() const noexcept {
    return __atomic_load_n(&header_->generation, __ATOMIC_ACQUIRE) != generation_;
  }
  // A view of the present generation.
  BasicTable renewed() const noexcept {
    BasicTable view = *this;
    view.adopt(load(header_->generation));
    return view;
  }
  // The generation that this view knows.
  uint64_t generation() const noexcept { return generation_; }
  Generations generations() const noexcept {
    Generations copy;
    copy_words(header_->generations, copy);
    return copy;
  }
  // The generation in which a slot of this key word was written.
  uint64_t generation_of(uint64_t key) const noexcept { return generation_ - age_of(key); }
  // Whether the key is of a generation that this view does not know yet.
  bool is_ahead(uint64_t key) const noexcept {
    return (generation_ - (key >> kGenerationShift)) % kGenerations >= kGenerations / 2;
  }
  // What a limit said in a generation; 0 if that isn't known.
  uint64_t terms(const Hash128& name, uint64_t generation) const noexcept;
  // Notes it. REQUIRES: no others note anything.
  void note_terms(const Hash128& name, uint64_t generation, uint64_t terms,
                  const Instant& now) noexcept;
  // The generations that the table has begun from here on.
  // REQUIRES: no others begin any.
  void set_generations(const Generations& generations) noexcept;

  // ----

  // Whether the slot may be given to another key: see (6).
  bool is_idle(const Slot& seen, const Instant& now) const noexcept {
    return is_idle(seen, now, header_->generations, generation_);
  }
  static bool is_idle(const Slot& seen, const Instant& now, const Generations& generations,
                      uint64_t present) noexcept;

  // Reads the whole table: for tests, metrics, and operators. Exact only when nobody writes.
  TableUsage usage(const Instant& now) const noexcept { return usage(now, 0, slots()); }
  // The same of the slots from `first` on, `count` of them: a large table in parts.
  TableUsage usage(const Instant& now, uint64_t first, uint64_t count) const noexcept;

  // A slot by its number, from 0 to slots() - 1, as it is now: for a copy of the table. A slot that
  // is being claimed or goes to another key meanwhile reads as vacated. By (2) a copy must tell
  // empty slots from those that are only free.
  Slot slot(uint64_t number) const noexcept;
  // Puts a copy's slot back in its place. REQUIRES: nobody else uses the table; the copy's table
  // had the same size and secret.
  void restore(uint64_t number, const Slot& slot) noexcept { *at(number) = slot; }

  // Starts fetching the two lines in which the key most likely is, for writing: a line that another
  // core has just changed then travels once, not once to be read and once more to be changed.
  [[gnu::always_inline]] void prefetch(const Hash128& hash) const noexcept {
    const Home home = home_of(hash);
    prefetch_line(line(home, 0, 0));
    prefetch_line(line(home, 0, 1));
  }

  // Whether the key has a slot, live or idle; if so `ref` is set. Where ref.expect_key differs from
  // ref.key, its state is as it stood there, of another generation, size or kind.
  bool find(const Hash128& hash, Mark mark, Ref& ref) const noexcept {
    return find_first(hash, mark, ref) || find_elsewhere(hash, mark, ref);
  }
  // The same in two steps: where it most often is, and as it most often is there; else.
  bool find_first(const Hash128& hash, Mark mark, Ref& ref) const noexcept;
  bool find_elsewhere(const Hash128& hash, Mark mark, Ref& ref) const noexcept;

  // Takes a free slot for a key that find() hasn't found.
  //   mine    `ref` is a slot that nobody else can charge. Its state is that of an idle key. Follow
  //           with commit() or release().
  //   exists  somebody else made one meanwhile, `ref` is that
  //   full    every slot that the key may have is live for another
  ClaimResult claim(const Hash128& hash, Mark mark, const Instant& now, Ref& ref) noexcept;

  // Stores `state` if the slot is still as it was read; false if not: find() again.
  bool commit(const Ref& ref, uint64_t state) noexcept {
    Sync::at(Point::before_commit);
    return cas(ref.slot, {ref.expect_key, ref.expect_state}, {ref.key, state});
  }

  // Gives up a claim that isn't wanted after all.
  void release(const Ref& ref) noexcept {
    cas(ref.slot, {ref.expect_key, ref.expect_state}, vacated());
  }

  // Waits a little, longer with each attempt and differently in each process, so that two that keep
  // undoing each other's claims part. Bounded: 2^10 pauses.
  static void back_off(unsigned attempt, uint64_t salt) noexcept;

 private:
  enum class Check { alone, exists, again };

  struct Home {
    Group* group[2];
    unsigned line[2];
  };

  static constexpr uint64_t kMagic = 0x6b636f74736e6570;  // "penstock"
  static constexpr uint64_t kVersion = 3;
  static constexpr uint64_t kKindMask = 7;
  static constexpr unsigned kGenerationShift = 9;
  static constexpr uint64_t kGenerations = 1024;
  static constexpr Secret kTermsKey{0x736d726574, 0x666f2061206c696d};  // names are secret already
  static constexpr uint64_t kHashMask = ~uint64_t{0} << 19;
  static constexpr unsigned kPairs = kLinesPerGroup;
  static constexpr unsigned kRoomy = 2;  // slots free in a line: new keys may go on coming there

  explicit BasicTable(std::span<std::byte> memory) noexcept
      : header_(reinterpret_cast<TableHeader*>(memory.data())),
        base_(reinterpret_cast<Group*>(memory.data() + sizeof(TableHeader))),
        groups_(groups_in(memory.size())),
        generation_(load(header_->generation)),
        stamp_(stamp_of(generation_)) {}

  static uint64_t stamp_of(uint64_t generation) noexcept {
    return generation % kGenerations << kGenerationShift;
  }
  void adopt(uint64_t generation) noexcept {
    generation_ = generation;
    stamp_ = stamp_of(generation);
  }

  static uint64_t groups_in(size_t bytes) noexcept {
    return (bytes - sizeof(TableHeader)) / sizeof(Group);
  }

  static Status check_memory(std::span<std::byte> memory);

  uint64_t key_word(const Hash128& hash, Mark mark) const noexcept {
    return (hash.hi & kHashMask) | stamp_ | mark.bits();
  }
  static uint64_t pending_word(const Hash128& hash) noexcept {
    return (hash.hi & kHashMask) | static_cast<uint64_t>(Kind::pending);
  }
  static bool is_key(Kind kind) noexcept {
    return kind != Kind::empty && kind != Kind::vacated && kind != Kind::pending;
  }
  // Whether a word is that of a key with the hash of `want`, of any generation, size and kind.
  static bool is_of(uint64_t key, uint64_t want) noexcept {
    return ((key ^ want) & kHashMask) == 0 && is_key(kind_of(key));
  }
  static uint64_t size_bits(uint64_t key) noexcept { return key >> 3 & 63; }
  // In generations; 0 also of one that is about to begin.
  uint64_t age_of(uint64_t key) const noexcept { return age_of(key, generation_); }
  static uint64_t age_of(uint64_t key, uint64_t present) noexcept {
    const uint64_t age = (present - (key >> kGenerationShift)) % kGenerations;
    return age < kGenerations / 2 ? age : 0;
  }
  // Others may read it meanwhile, word by word.
  static void copy_words(const Generations& from, Generations& to) noexcept {
    static_assert(sizeof(Generations) % sizeof(uint64_t) == 0);
    for (size_t i = 0; i < sizeof(Generations) / sizeof(uint64_t); ++i) {
      __atomic_store_n(reinterpret_cast<uint64_t*>(&to) + i,
                       load(reinterpret_cast<const uint64_t*>(&from)[i]), __ATOMIC_RELEASE);
    }
  }
  static Kind kind_of(uint64_t key) noexcept { return static_cast<Kind>(key & kKindMask); }
  static Slot vacated() noexcept { return {static_cast<uint64_t>(Kind::vacated), 0}; }
  static uint64_t load(const uint64_t& word) noexcept {
    return __atomic_load_n(&word, __ATOMIC_ACQUIRE);
  }

  static void prefetch_line(const Line* at) noexcept {
#if defined(__x86_64__)
    // Not __builtin_prefetch: GCC makes a read prefetch of it unless told the CPU, and drops calls
    // of functions that do nothing else as being without effect.
    asm volatile("prefetchw %0" : : "m"(*at));
#else
    __builtin_prefetch(at, 1);
#endif
  }

  // A full barrier too, on which the proof of (3) leans: what is read after marking is read after.
  static bool cas(Slot* slot, Slot from, Slot to) noexcept {
    __extension__ using Wide = unsigned __int128;
    using Aliased [[gnu::may_alias]] = Wide;
    const bool done = __sync_bool_compare_and_swap(reinterpret_cast<Aliased*>(slot),
                                                   Wide{from.state} << 64 | from.key,
                                                   Wide{to.state} << 64 | to.key);
#if !defined(__x86_64__)
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
    return done;
  }

  // Two different groups from the two halves of hash.lo, by multiplication instead of modulo
  // (Lemire 2016); the home lines from the bits that matter least there.
  Home home_of(const Hash128& hash) const noexcept {
    const uint64_t low = hash.lo & 0xffffffff;
    const uint64_t high = hash.lo >> 32;
    const uint64_t first = low * groups_ >> 32;
    const uint64_t second = first + 1 + (high * (groups_ - 1) >> 32);
    return {{base_ + first, base_ + (second < groups_ ? second : second - groups_)},
            {static_cast<unsigned>(low % kLinesPerGroup),
             static_cast<unsigned>(high % kLinesPerGroup)}};
  }

  // line(home_of(hash), 0, 0)
  Line* first_line(const Hash128& hash) const noexcept {
    const uint64_t low = hash.lo & 0xffffffff;
    return &base_[low * groups_ >> 32].lines[low % kLinesPerGroup];
  }

  static Line* line(const Home& home, unsigned pair, unsigned side) noexcept {
    return &home.group[side]->lines[home.line[side] ^ pair];
  }

  Slot* at(uint64_t number) const noexcept {
    return &base_[number / kSlotsPerGroup]
                .lines[number / kSlotsPerLine % kLinesPerGroup]
                .slots[number % kSlotsPerLine];
  }

  // Where a limit's terms are: unrelated to where its keys are.
  static Hash128 terms_place(const Hash128& name, uint64_t generation) noexcept {
    const uint64_t words[] = {name.lo, name.hi, generation};
    return siphash13_128(kTermsKey, words, sizeof words);
  }
  static bool find_in(Line* at, uint64_t want, Ref& ref) noexcept;
  // The attribute stands here: at a definition after `extern template` GCC does not heed it.
  [[gnu::always_inline]] static inline bool find_like(Line* at, uint64_t want, Ref& ref) noexcept;
  static bool has_empty(const Line* at) noexcept;
  bool choose(const Home& home, bool lasts, const Instant& now, Slot*& slot,
              Slot& seen) const noexcept;
  Offer survey(Line* at, bool lasts, const Instant& now) const noexcept;
  static bool is_kept_from_windows(const Line* at, const Slot& slot) noexcept;
  static uint64_t part_used(const Slot& seen, const Instant& now) noexcept;
  Check check_alone(const Home& home, uint64_t want, const Slot* mine, Ref& ref) noexcept;
  void give_up(const Slot& seen, const Instant& now) noexcept;

  TableHeader* header_;
  Group* base_;
  uint64_t groups_;      // as in the header, which others could damage
  uint64_t generation_;  // in which this view writes
  uint64_t stamp_;       // the same as it stands in keys
};

}  // namespace penstock::limit

#include "shared/limit/table-find-inl.h"

namespace penstock::limit {

extern template class BasicTable<NoSync>;
using Table = BasicTable<NoSync>;

}  // namespace penstock::limit

#include "shared/limit/table-inl.h"
