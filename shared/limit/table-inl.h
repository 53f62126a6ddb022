// The slow paths of BasicTable: creation, the choice of a free slot, statistics.
#pragma once

#include <cstring>
#include <string>

#include "shared/limit/table.h"

namespace penstock::limit {

template <class Sync>
Status BasicTable<Sync>::check_memory(std::span<std::byte> memory) {
  if (reinterpret_cast<uintptr_t>(memory.data()) % alignof(TableHeader) != 0) {
    return Error{"a counter table's memory must be aligned to " +
                 std::to_string(alignof(TableHeader)) + " bytes"};
  }
  if (memory.size() < bytes_for(1)) {
    return Error{"a counter table of " + std::to_string(memory.size()) +
                 " bytes is too small: use at least " + std::to_string(bytes_for(1))};
  }
  if ((memory.size() - sizeof(TableHeader)) / sizeof(Group) > uint64_t{1} << 32) {
    return Error{"a counter table of more than 1 TiB is too large: use several zones"};
  }
  return Ok{};
}

template <class Sync>
auto BasicTable<Sync>::create(std::span<std::byte> memory, const Secret& secret,
                              int64_t clock_offset_ns) -> Result<BasicTable> {
  if (Status fit = check_memory(memory); !fit) {
    return fit.error();
  }
  // Also brings every page in now, so that no request waits for one, or dies for lack of memory.
  std::memset(memory.data(), 0, memory.size());
  BasicTable table(memory);
  table.header_->version = kVersion;
  table.header_->bytes = memory.size();
  table.header_->groups = table.groups_;
  table.header_->secret = secret;
  table.header_->clock_offset_ns = clock_offset_ns;
  // Last, so that a table whose maker died halfway isn't taken for one.
  __atomic_store_n(&table.header_->magic, kMagic, __ATOMIC_RELEASE);
  return table;
}

template <class Sync>
auto BasicTable<Sync>::attach(std::span<std::byte> memory) -> Result<BasicTable> {
  if (Status fit = check_memory(memory); !fit) {
    return fit.error();
  }
  BasicTable table(memory);
  const TableHeader& header = *table.header_;
  if (load(header.magic) != kMagic) {
    return Error{"there is no counter table in this memory: create one"};
  }
  if (header.version != kVersion) {
    return Error{"the counter table is of version " + std::to_string(header.version) +
                 ", this program knows " + std::to_string(kVersion) + ": create a new one"};
  }
  if (header.bytes != memory.size() || header.groups != table.groups_) {
    return Error{"the counter table was made for " + std::to_string(header.bytes) +
                 " bytes, the memory has " + std::to_string(memory.size()) +
                 ": keep the size, or create a new one"};
  }
  return table;
}

template <class Sync>
Slot BasicTable<Sync>::slot(uint64_t number) const noexcept {
  const Slot* from = at(number);
  const uint64_t key = load(from->key);
  const uint64_t state = load(from->state);
  const bool whole = load(from->key) == key;
  const Kind kind = kind_of(key);
  return whole && kind != Kind::pending ? Slot{key, state} : vacated();
}

template <class Sync>
TableUsage BasicTable<Sync>::usage(const Instant& now, uint64_t first,
                                   uint64_t count) const noexcept {
  TableUsage usage;
  for (uint64_t i = first; i < first + count && i < slots(); ++i) {
    const Slot* slot = at(i);
    const Kind kind = kind_of(load(slot->key));
    if (kind == Kind::empty || kind == Kind::vacated || kind == Kind::terms) {
      ++usage.empty;  // but for a few, that hold no key's count
    } else if (kind == Kind::pending) {
      ++usage.pending;
    } else if (is_idle({load(slot->key), load(slot->state)}, now)) {
      ++usage.idle;
    } else {
      ++usage.live;
    }
  }
  return usage;
}

template <class Sync>
bool BasicTable<Sync>::has_empty(const Line* at) noexcept {
  bool empty = false;
  for (const Slot& slot : at->slots) {
    empty |= load(slot.key) == 0;
  }
  return empty;
}

// The key's slot in one line, of whatever generation.
template <class Sync>
bool BasicTable<Sync>::find_like(Line* at, uint64_t want, Ref& ref) noexcept {
  Slot* const slots = at->slots;
  const bool in[] = {is_of(load(slots[0].key), want), is_of(load(slots[1].key), want),
                     is_of(load(slots[2].key), want), is_of(load(slots[3].key), want)};
  if (!(in[0] | in[1] | in[2] | in[3])) {
    return false;
  }
  Slot& slot = slots[in[0] ? 0 : 3 - 2 * in[1] - (in[2] & !in[1])];
  const uint64_t key = load(slot.key);
  const uint64_t state = load(slot.state);
  if (load(slot.key) != key || !is_of(key, want)) {
    return false;  // it has just gone, and a claim looks at all places anew
  }
  ref = {&slot, key, state, want, state};
  Sync::at(Point::found);
  return true;
}

// The rest of find(): the key is not in its first line, or not as it is written now. Whether a pair
// has an empty slot is read after its keys are: by (2) what is empty then has been empty all the
// time.
template <class Sync>
[[gnu::noinline]] bool BasicTable<Sync>::find_elsewhere(const Hash128& hash, Mark mark,
                                                        Ref& ref) const noexcept {
  const Home home = home_of(hash);
  const uint64_t want = key_word(hash, mark);
  for (unsigned pair = 0; pair < kPairs; ++pair) {
    Line* const first = line(home, pair, 0);
    Line* const second = line(home, pair, 1);
    if (find_like(first, want, ref) || find_like(second, want, ref)) {
      return true;
    }
    if (has_empty(first) || has_empty(second)) {
      return false;  // the key can be in no later pair
    }
  }
  return false;
}

template <class Sync>
bool BasicTable<Sync>::is_idle(const Slot& seen, const Instant& now, const Generations& generations,
                               uint64_t present) noexcept {
  const Kind kind = kind_of(seen.key);
  const uint64_t age = age_of(seen.key, present);
  if (kind == Kind::terms) {
    return age > Generations::kRemembered;
  }
  if (age == 0) [[likely]] {
    return idle_at(kind, seen.state, now);
  }
  const auto word = [](const int64_t& at) noexcept {
    return __atomic_load_n(&at, __ATOMIC_ACQUIRE);
  };
  const Instant since{word(generations.held_since.steady_ns), word(generations.held_since.wall_ns)};
  return idle_at(kind, seen.state, since) ||
         (now.steady_ns >= word(generations.held_until_ns) && idle_at(kind, seen.state, now));
}

// The part of its size that a live slot has used, in 2^32; all of it, of what is never given up or
// only held (see (6)).
template <class Sync>
uint64_t BasicTable<Sync>::part_used(const Slot& seen, const Instant& now) noexcept {
  constexpr uint64_t kAll = uint64_t{1} << 32;
  const uint64_t bits = size_bits(seen.key);
  const Kind kind = kind_of(seen.key);
  if (bits == 0 || kind == Kind::terms) {
    return kAll;
  }
  const uint64_t used = kind == Kind::gcra    ? seen.state - gcra_ticks(now.steady_ns)
                        : kind == Kind::fixed ? fixed_window_used(seen.state, now)
                                              : paired_window_used(seen.state, now);
  if (used == 0 || used >= uint64_t{1} << bits) {
    return kAll;
  }
  return bits >= 32 ? used >> (bits - 32) : used << (32 - bits);
}

template <class Sync>
bool BasicTable<Sync>::is_kept_from_windows(const Line* at, const Slot& slot) noexcept {
  static_assert(sizeof(TableHeader) % sizeof(Group) == 0 && kLinesPerGroup % 2 == 0);
  return reinterpret_cast<uintptr_t>(at) / sizeof(Line) % 2 == 0 && &slot == &at->slots[3];
}

template <class Sync>
Offer BasicTable<Sync>::survey(Line* at, bool lasts, const Instant& now) const noexcept {
  constexpr uint64_t kNearlyUnused = (uint64_t{1} << 32) / kUnused;
  Offer offer;
  for (Slot& slot : at->slots) {
    const Slot seen{load(slot.key), load(slot.state)};
    const Kind kind = kind_of(seen.key);
    if (lasts && is_kept_from_windows(at, slot)) {
      if (seen.key == 0) {
        cas(&slot, seen, vacated());  // by (2) none that is empty may be passed over
      }
      continue;
    }
    unsigned rank = Offer::kNone;
    uint64_t used = 0;
    if (seen.key == 0) {
      rank = Offer::kEmpty;
    } else if (kind == Kind::vacated) {
      rank = Offer::kVacated;
    } else if (kind == Kind::pending) {
      rank = Offer::kPending;
    } else if (is_idle(seen, now)) {
      rank = Offer::kIdle;
    } else if (used = part_used(seen, now); used <= kNearlyUnused) {
      rank = Offer::kUnusedSlot;
    }
    offer.free += rank <= Offer::kIdle ? 1 : 0;
    offer.take_if_better(rank, used, &slot, seen);
  }
  return offer;
}

// A free slot in the first pair that has one, there in the first line or, where that is nearly
// full, in the emptier one; else what is used least, if that is nearly nothing. Slots pending for
// somebody are the last resort: most likely their claimers are at work, rarely they are dead.
template <class Sync>
bool BasicTable<Sync>::choose(const Home& home, bool lasts, const Instant& now, Slot*& slot,
                              Slot& seen) const noexcept {
  Offer least;
  for (unsigned pair = 0; pair < kPairs; ++pair) {
    const Offer a = survey(line(home, pair, 0), lasts, now);
    const Offer b = survey(line(home, pair, 1), lasts, now);
    const Offer& best = a.free < kRoomy && b.free > a.free ? b : a;
    if (best.free != 0) {
      slot = best.slot;
      seen = best.seen;
      return true;
    }
    for (const Offer* offer : {&a, &b}) {
      least.take_if_better(offer->rank, offer->used, offer->slot, offer->seen);
    }
  }
  slot = least.slot;
  seen = least.seen;
  return least.rank != Offer::kNone;
}

template <class T>
void raise_to(T& value, T least) noexcept {
  T now = __atomic_load_n(&value, __ATOMIC_ACQUIRE);
  while (now < least && !__atomic_compare_exchange_n(&value, &now, least, true, __ATOMIC_ACQ_REL,
                                                     __ATOMIC_ACQUIRE)) {
  }
}

// Before a slot is taken for another key. One of an earlier generation may have gone idle later
// than it says.
template <class Sync>
void BasicTable<Sync>::give_up(const Slot& seen, const Instant& now) noexcept {
  const uint64_t ticks = gcra_ticks(now.steady_ns);
  switch (kind_of(seen.key)) {
    case Kind::gcra:
      raise_to(header_->floor, age_of(seen.key) == 0 && seen.state < ticks ? seen.state : ticks);
      break;
    case Kind::fixed:
    case Kind::paired:
      raise_to(header_->given_up_ns, now.steady_ns);
      break;
    default:
      break;
  }
}

template <class Sync>
uint64_t BasicTable<Sync>::terms(const Hash128& name, uint64_t generation) const noexcept {
  Ref ref;
  return find(terms_place(name, generation), Kind::terms, ref) ? ref.state : 0;
}

template <class Sync>
void BasicTable<Sync>::note_terms(const Hash128& name, uint64_t generation, uint64_t terms,
                                  const Instant& now) noexcept {
  BasicTable then = *this;
  then.adopt(generation);
  const Hash128 place = terms_place(name, generation);
  Ref ref;
  if (then.find(place, Kind::terms, ref) ||
      then.claim(place, Kind::terms, now, ref) != ClaimResult::full) {
    then.commit(ref, terms);
  }
}

template <class Sync>
void BasicTable<Sync>::set_generations(const Generations& generations) noexcept {
  copy_words(generations, header_->generations);
  adopt(generations.present);
  __atomic_store_n(&header_->generation, generation_, __ATOMIC_RELEASE);
}

template <class Sync>
void BasicTable<Sync>::back_off(unsigned attempt, uint64_t salt) noexcept {
  const unsigned bits = attempt < 10 ? attempt : 10;
  const uint64_t pauses = (salt * 0x9e3779b97f4a7c15 >> 32) & ((uint64_t{1} << bits) - 1);
  for (uint64_t i = 0; i < pauses; ++i) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
#endif
  }
}

}  // namespace penstock::limit
