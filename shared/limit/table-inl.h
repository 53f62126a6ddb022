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
    if (kind == Kind::empty || kind == Kind::vacated) {
      ++usage.empty;
    } else if (kind == Kind::pending) {
      ++usage.pending;
    } else if (idle_at(kind, load(slot->state), now)) {
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

// The rest of find(): the key is not in its first line. Whether a pair has an empty slot is read
// after its keys are: by (2) what is empty then has been empty all the time.
template <class Sync>
bool BasicTable<Sync>::find_elsewhere(const Hash128& hash, uint64_t want, Ref& ref) const noexcept {
  const Home home = home_of(hash);
  for (unsigned pair = 0; pair < kPairs; ++pair) {
    Line* const first = line(home, pair, 0);
    Line* const second = line(home, pair, 1);
    if ((pair != 0 && find_in(first, want, ref)) || find_in(second, want, ref)) {
      return true;
    }
    if (has_empty(first) || has_empty(second)) {
      return false;  // the key can be in no later pair
    }
  }
  return false;
}

template <class Sync>
Offer BasicTable<Sync>::survey(Line* at, const Instant& now) const noexcept {
  Offer offer;
  for (Slot& slot : at->slots) {
    const Slot seen{load(slot.key), load(slot.state)};
    const Kind kind = kind_of(seen.key);
    unsigned rank = Offer::kNone;
    if (seen.key == 0) {
      rank = Offer::kEmpty;
    } else if (kind == Kind::vacated) {
      rank = Offer::kVacated;
    } else if (kind == Kind::pending) {
      rank = Offer::kPending;
    } else if (idle_at(kind, seen.state, now)) {
      rank = Offer::kIdle;
    }
    offer.free += rank <= Offer::kIdle ? 1 : 0;
    if (rank < offer.rank) {
      offer.rank = rank;
      offer.slot = &slot;
      offer.seen = seen;
    }
  }
  return offer;
}

// A free slot in the first pair that has one, there in the first line or, where that is nearly
// full, in the emptier one. Slots pending for somebody are the last resort: most likely their
// claimers are at work, rarely they are dead.
template <class Sync>
bool BasicTable<Sync>::choose(const Home& home, const Instant& now, Slot*& slot,
                              Slot& seen) const noexcept {
  Offer pending;
  for (unsigned pair = 0; pair < kPairs; ++pair) {
    const Offer a = survey(line(home, pair, 0), now);
    const Offer b = survey(line(home, pair, 1), now);
    const Offer& best = a.free < kRoomy && b.free > a.free ? b : a;
    if (best.free != 0) {
      slot = best.slot;
      seen = best.seen;
      return true;
    }
    for (const Offer* offer : {&a, &b}) {
      if (offer->rank < pending.rank) {
        pending = *offer;
      }
    }
  }
  slot = pending.slot;
  seen = pending.seen;
  return pending.rank == Offer::kPending;
}

template <class T>
void raise_to(T& value, T least) noexcept {
  T now = __atomic_load_n(&value, __ATOMIC_ACQUIRE);
  while (now < least && !__atomic_compare_exchange_n(&value, &now, least, true, __ATOMIC_ACQ_REL,
                                                     __ATOMIC_ACQUIRE)) {
  }
}

// Before an idle slot is taken for another key.
template <class Sync>
void BasicTable<Sync>::give_up(const Slot& idle, const Instant& now) noexcept {
  switch (kind_of(idle.key)) {
    case Kind::gcra:
      raise_to(header_->floor, idle.state);
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
